"""The production overlay, for tests to plant errors in."""

import copy
from collections.abc import Callable

import pytest
from written import Overlay, as_written

from k8s_check.model import Manifests


@pytest.fixture(scope="session")
def original() -> Overlay:
    return as_written()


@pytest.fixture
def overlay(original: Overlay) -> Overlay:
    return copy.deepcopy(original)


@pytest.fixture
def plant(overlay: Overlay) -> Callable[..., Manifests]:
    """Return the overlay after edits, each a (name, path, value)."""

    def edited(*edits: tuple[str, str, object]) -> Manifests:
        for edit in edits:
            overlay.set(*edit)
        return overlay.manifests()

    return edited
