"""The list of rules, each named after its function."""

from collections.abc import Callable, Iterator
from typing import Final

from k8s_check import (
    configuration,
    conventions,
    destinations,
    entrances,
    network,
    pods,
    scaling,
    settings,
)
from k8s_check.model import Manifests

Rule = Callable[[Manifests], Iterator[str]]

RULES: Final[tuple[Rule, ...]] = (
    conventions.labels, conventions.service_names, conventions.migration_names, conventions.operator_labels,
    conventions.node_selectors,
    configuration.files, configuration.secret_items,
    pods.service_links, pods.drain, pods.journals,
    network.default_deny, network.open_rules, network.both_ends,
    entrances.routes_in, entrances.monitors, entrances.route_timeouts,
    destinations.services, destinations.egress,
    scaling.queue_scaling,
    settings.environment, settings.time_limits, settings.connection_budget, settings.local_share,
)  # fmt: skip  # a group a line


def problems(manifests: Manifests) -> list[str]:
    """Return all problems, each prefixed with the name of its rule."""
    return [f"{rule.__name__}: {problem}" for rule in RULES for problem in rule(manifests)]
