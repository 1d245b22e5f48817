"""The production overlay as it is written, for tests to spoil."""

import copy
from collections.abc import Callable

import pytest
from written import Overlay, as_written

from k8s_check.model import Manifests


@pytest.fixture(scope="session")
def untouched() -> Overlay:
    return as_written()


@pytest.fixture
def overlay(untouched: Overlay) -> Overlay:
    return copy.deepcopy(untouched)


@pytest.fixture
def spoil(overlay: Overlay) -> Callable[..., Manifests]:
    """Call it with edits (name, path, value) for the overlay with these errors in it."""

    def spoilt(*edits: tuple[str, str, object]) -> Manifests:
        for edit in edits:
            overlay.set(*edit)
        return overlay.manifests()

    return spoilt
