"""NetworkPolicies: nothing is open by default, peers exist, and both ends of every way agree."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from k8s_check.model import Json, Manifests, Pod, Resource, matches

TLS_PORT: Final = 443
PRIVATE: Final = {
    4: ("10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"),
    6: ("fc00::/7", "fe80::/10", "64:ff9b::/96", "64:ff9b:1::/48"),  # the last two are IPv4, behind a NAT64
}


@dataclass(frozen=True)
class Way:
    """One peer and one port of one rule; no port stands for all of them."""

    policy: Resource
    direction: str
    peer: Json
    port: int | str | None

    def reaches(self, pod: Pod) -> bool:
        """Whether the peer is a pod of the policy's own namespace, and this one."""
        if set(self.peer) != {"podSelector"} or pod.namespace != self.policy.namespace:
            return False
        return matches(self.peer["podSelector"], pod.labels)


def default_deny(manifests: Manifests) -> Iterator[str]:
    """A policy without rules covers every pod of every namespace that has pods, both ways."""
    for namespace in sorted({pod.namespace for pod in manifests.pods}):
        closed = {
            direction
            for policy in manifests.of("NetworkPolicy")
            if policy.namespace == namespace and not policy.spec.get("podSelector")
            for direction in policy.spec.get("policyTypes", ())
            if not policy.spec.get(direction.lower())
        }
        yield from (
            f"namespace {namespace}: no policy denies {direction} by default"
            for direction in ("Ingress", "Egress")
            if direction not in closed
        )


def peers(manifests: Manifests) -> Iterator[str]:
    """Policies select pods, say which way they are about, and their peers exist; ports are given."""
    for policy in manifests.of("NetworkPolicy"):
        if not manifests.selected(policy.spec.get("podSelector"), policy.namespace):
            yield f"{policy}: its podSelector matches no workload"
        for direction in ("ingress", "egress"):
            if direction in policy.spec and direction.capitalize() not in policy.spec.get("policyTypes", ()):
                yield f"{policy}: has {direction} rules, but not that policyType"
            for rule in policy.spec.get(direction) or ():
                if not rule.get("from" if direction == "ingress" else "to"):
                    yield f"{policy}: an {direction} rule is open to everyone"
                if not rule.get("ports"):
                    yield f"{policy}: an {direction} rule is open on every port"
    for way in ways(manifests):
        if set(way.peer) == {"podSelector"} and not any(way.reaches(pod) for pod in manifests.pods):
            yield f"{way.policy}: {way.direction} peer {dict(way.peer['podSelector'])} matches no workload"


def strangers(manifests: Manifests) -> Iterator[str]:
    """Peers in another namespace are named by their pods: whatever else runs there is nobody's peer."""
    for way in ways(manifests):
        if "namespaceSelector" in way.peer and not way.peer.get("podSelector"):
            yield f"{way.policy}: {way.direction} names whatever runs in another namespace"


def internet(manifests: Manifests) -> Iterator[str]:
    """Whoever may send to every address is kept from private ones and metadata servers, and speaks TLS."""
    for way in ways(manifests):
        block = way.peer.get("ipBlock") or {}
        if way.direction != "egress" or not block or ip_network(block["cidr"]).prefixlen:
            continue
        if way.port != TLS_PORT:
            yield f"{way.policy}: may send to {block['cidr']} on port {way.port}"
        kept = [ip_network(each) for each in block.get("except", ())]
        for private in PRIVATE[ip_network(block["cidr"]).version]:
            if not any(_holds(each, private) for each in kept):
                yield f"{way.policy}: may send to {block['cidr']}, {private} and all"


def both_ends(manifests: Manifests) -> Iterator[str]:
    """What one pod may send to another's port, the other lets in, and the other way round; the port exists."""
    outgoing = set(pairs(manifests, "egress"))
    incoming = set(pairs(manifests, "ingress"))
    for sender, receiver, port in sorted(outgoing - incoming):
        yield f"{sender} may send to {receiver} on port {port}, which does not let it in"
    for sender, receiver, port in sorted(incoming - outgoing):
        yield f"{receiver} lets {sender} in on port {port}, who may not send there"
    for way in ways(manifests):
        receivers = _receivers(manifests, way)
        for pod in receivers:
            if way.port is not None and way.port not in pod.ports:
                yield f"{way.policy}: port {way.port} is no port of {pod.owner}"
        if way.direction == "ingress" and set(way.peer) != {"podSelector"} and not receivers:
            yield f"{way.policy}: port {way.port} is no port of any pod it selects"


def entrances(manifests: Manifests) -> Iterator[str]:
    """What an Ingress leads to lets another namespace in on that port; what is monitored does so on its ops port."""
    wanted: list[tuple[Resource, Pod, int | str]] = []
    for ingress in manifests.of("Ingress"):
        for rule in ingress.spec.get("rules", ()):
            for path in rule["http"]["paths"]:
                service = manifests.find("Service", ingress.namespace, path["backend"]["service"]["name"])
                selector = {"matchLabels": service.spec.get("selector")} if service else {"matchLabels": {"": ""}}
                for pod in manifests.selected(selector, ingress.namespace):
                    wanted.append((ingress, pod, pod.ports.get("http", "http")))
    for monitor in manifests.of("PodMonitor"):
        for pod in manifests.selected(monitor.spec["selector"], monitor.namespace):
            wanted += [(monitor, pod, pod.ports.get(e["port"], e["port"])) for e in monitor.spec["podMetricsEndpoints"]]
    for cause, pod, port in wanted:
        if not _lets_others_in(manifests, pod, port):
            yield f"{cause}: no policy lets another namespace in to {pod.owner} on port {port}"


def pairs(manifests: Manifests, direction: str) -> Iterator[tuple[str, str, int | str | None]]:
    """Sender, receiver and port of every way between two pods that policies of one direction allow."""
    for way in ways(manifests):
        if way.direction != direction:
            continue
        own = manifests.selected(way.policy.spec.get("podSelector"), way.policy.namespace)
        for pod in own:
            for other in manifests.pods:
                if way.reaches(other):
                    sender, receiver = (pod, other) if direction == "egress" else (other, pod)
                    yield str(sender.owner), str(receiver.owner), way.port


def ways(manifests: Manifests) -> Iterator[Way]:
    """Every peer and port of every rule."""
    for policy in manifests.of("NetworkPolicy"):
        for direction, field in (("ingress", "from"), ("egress", "to")):
            for rule in policy.spec.get(direction) or ():
                for peer in rule.get(field) or ():
                    ports: list[Json] = rule.get("ports") or [{}]
                    yield from (Way(policy, direction, peer, port.get("port")) for port in ports)


def _holds(network: IPv4Network | IPv6Network, other: str) -> bool:
    part = ip_network(other)
    if isinstance(network, IPv4Network) and isinstance(part, IPv4Network):
        return part.subnet_of(network)
    return isinstance(network, IPv6Network) and isinstance(part, IPv6Network) and part.subnet_of(network)


def _lets_others_in(manifests: Manifests, pod: Pod, port: int | str) -> bool:
    return any(
        way.direction == "ingress" and "namespaceSelector" in way.peer and way.port in (None, port)
        for way in ways(manifests)
        if pod in manifests.selected(way.policy.spec.get("podSelector"), way.policy.namespace)
    )


def _receivers(manifests: Manifests, way: Way) -> list[Pod]:
    """The pods whose port a way is about; for traffic from outside those of its policy that have the port."""
    if way.direction == "egress":
        return [pod for pod in manifests.pods if way.reaches(pod)]
    selected = manifests.selected(way.policy.spec.get("podSelector"), way.policy.namespace)
    return selected if set(way.peer) == {"podSelector"} else [pod for pod in selected if way.port in pod.ports]
