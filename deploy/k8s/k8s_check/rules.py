"""The list of rules; the name of each is that of its function."""

from collections.abc import Callable, Iterator
from typing import Final

from k8s_check import destinations, environment, families, network, pods, references, scaling, services
from k8s_check.model import Manifests

Rule = Callable[[Manifests], Iterator[str]]

RULES: Final[tuple[Rule, ...]] = (
    services.duplicates, services.selectors, services.services, services.monitors,
    references.configuration, references.accounts, references.volumes, references.items, references.backends,
    references.certificates,
    pods.isolation, pods.namespaces, pods.restricted, pods.images, pods.resources,
    pods.probes, pods.drain, pods.journals,
    network.default_deny, network.peers, network.strangers, network.internet, network.both_ends, network.entrances,
    families.families,
    destinations.addresses, destinations.routes, destinations.roles, destinations.encryption,
    scaling.targets, scaling.bounds, scaling.metrics, scaling.disruptions, scaling.spread, scaling.rollouts,
    environment.settings, environment.patience, environment.connections, environment.shares,
)  # fmt: skip  # a group a line


def problems(manifests: Manifests) -> list[str]:
    """What is wrong, each line with the rule that says so."""
    return [f"{rule.__name__}: {problem}" for rule in RULES for problem in rule(manifests)]
