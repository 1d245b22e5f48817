"""NetworkPolicies: default deny, no open rules, and both ends of every path agree."""

from collections.abc import Iterator
from dataclasses import dataclass

from k8s_check.model import Json, Manifests, Pod, Resource, matches


@dataclass(frozen=True)
class Path:
    """One peer and one port of one policy rule. Without a port it means all ports."""

    policy: Resource
    direction: str
    peer: Json
    port: int | str | None

    def reaches(self, pod: Pod) -> bool:
        """Return whether the peer selects this pod, in the policy's own namespace."""
        if set(self.peer) != {"podSelector"} or pod.namespace != self.policy.namespace:
            return False
        return matches(self.peer["podSelector"], pod.labels)


def default_deny(manifests: Manifests) -> Iterator[str]:
    """A policy without rules covers every pod of each namespace, in both directions."""
    for namespace in sorted({pod.namespace for pod in manifests.pods}):
        closed = {
            direction
            for policy in manifests.of("NetworkPolicy")
            if policy.namespace == namespace and not policy.spec.get("podSelector")
            for direction in policy.spec.get("policyTypes", ())
            if not policy.spec.get(direction.lower())
        }
        for direction in ("Ingress", "Egress"):
            if direction not in closed:
                yield f"namespace {namespace}: no policy denies {direction} by default"


def open_rules(manifests: Manifests) -> Iterator[str]:
    """Every rule names peers and ports, and peers of other namespaces are named by their pods."""
    for policy in manifests.of("NetworkPolicy"):
        for direction, field in (("ingress", "from"), ("egress", "to")):
            for rule in policy.spec.get(direction) or ():
                if not rule.get(field):
                    yield f"{policy}: an {direction} rule has no peers, so it allows all"
                if not rule.get("ports"):
                    yield f"{policy}: an {direction} rule has no ports, so it allows all"
    for path in paths(manifests):
        if "namespaceSelector" in path.peer and not path.peer.get("podSelector"):
            yield f"{path.policy}: {path.direction} allows every pod of another namespace"


def both_ends(manifests: Manifests) -> Iterator[str]:
    """What one pod may send to another, the other accepts, and the reverse; the port exists."""
    outgoing, incoming = set(pairs(manifests, "egress")), set(pairs(manifests, "ingress"))
    for sender, receiver, port in sorted(outgoing - incoming):
        yield f"{sender} may send to {receiver} on port {port}, which does not accept it"
    for sender, receiver, port in sorted(incoming - outgoing):
        yield f"{receiver} accepts {sender} on port {port}, which may not send there"
    for path in paths(manifests):
        receivers = _receivers(manifests, path)
        for pod in receivers:
            if path.port is not None and path.port not in pod.ports:
                yield f"{path.policy}: port {path.port} is no port of {pod.owner}"
        if path.direction == "ingress" and set(path.peer) != {"podSelector"} and not receivers:
            yield f"{path.policy}: port {path.port} is no port of any pod it selects"


def pairs(manifests: Manifests, direction: str) -> Iterator[tuple[str, str, int | str | None]]:
    """Yield sender, receiver and port of every path between two pods that policies of one direction allow."""
    for path in paths(manifests):
        if path.direction != direction:
            continue
        for pod in manifests.selected(path.policy.spec.get("podSelector"), path.policy.namespace):
            for other in manifests.pods:
                if path.reaches(other):
                    sender, receiver = (pod, other) if direction == "egress" else (other, pod)
                    yield str(sender.owner), str(receiver.owner), path.port


def paths(manifests: Manifests) -> Iterator[Path]:
    """Yield every peer and port of every rule."""
    for policy in manifests.of("NetworkPolicy"):
        for direction, field in (("ingress", "from"), ("egress", "to")):
            for rule in policy.spec.get(direction) or ():
                for peer in rule.get(field) or ():
                    ports: list[Json] = rule.get("ports") or [{}]
                    yield from (Path(policy, direction, peer, port.get("port")) for port in ports)


def accepts_other_namespaces(manifests: Manifests, pod: Pod, port: int | str) -> bool:
    """Return whether a policy lets pods of another namespace reach this port."""
    return any(
        path.direction == "ingress" and "namespaceSelector" in path.peer and path.port in (None, port)
        for path in paths(manifests)
        if pod in manifests.selected(path.policy.spec.get("podSelector"), path.policy.namespace)
    )


def _receivers(manifests: Manifests, path: Path) -> list[Pod]:
    """Return the pods whose port a path names. From outside, only those that have the port."""
    if path.direction == "egress":
        return [pod for pod in manifests.pods if path.reaches(pod)]
    selected = manifests.selected(path.policy.spec.get("podSelector"), path.policy.namespace)
    return selected if set(path.peer) == {"podSelector"} else [pod for pod in selected if path.port in pod.ports]
