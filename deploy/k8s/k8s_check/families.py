"""IPv4 or IPv6: services listen on addresses of one of them, and policies and trusted proxies name blocks of it."""

from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network
from typing import Final

from edge_limiter.settings import EdgeSettings, split
from k8s_check.environment import listens, started
from k8s_check.model import Manifests

ANY: Final = {4: "0.0.0.0", 6: "::"}


def families(manifests: Manifests) -> Iterator[str]:
    """A pod's address is of the one; what is of the other alone reaches it never, and is reached never."""
    hosts: dict[str, str] = {}
    for pod, _, loaded in started(manifests):
        if pod.ports and (listen := listens(loaded)):
            hosts |= {f"{pod.owner}: its service": listen.host, f"{pod.owner}: its ops port": listen.ops_host}
    versions = {ip_address(host).version for host in hosts.values()}
    if len(versions) > 1:
        yield from (f"{what} is on {host}, and not all others are" for what, host in hosts.items() if ":" in host)
        return
    for version in versions:
        yield from (f"{wrong}, and the services listen on {ANY[version]}" for wrong in _foreign(manifests, version))


def _foreign(manifests: Manifests, version: int) -> Iterator[str]:
    for policy in manifests.of("NetworkPolicy"):
        for rule in policy.spec.get("egress") or ():
            blocks = [peer["ipBlock"]["cidr"] for peer in rule.get("to") or () if "ipBlock" in peer]
            if len(blocks) == len(rule.get("to") or ()) and _lacks(blocks, version):
                yield f"{policy}: {', '.join(blocks)} has nothing of IPv{version}"
    for pod, _, loaded in started(manifests):
        if isinstance(loaded, EdgeSettings) and _lacks(split(loaded.edge_trusted_proxies), version):
            yield f"{pod.owner}: EDGE_TRUSTED_PROXIES {loaded.edge_trusted_proxies} has nothing of IPv{version}"


def _lacks(blocks: Sequence[str], version: int) -> bool:
    """Whether there are some, and none of this version."""
    return bool(blocks) and version not in {ip_network(block, strict=False).version for block in blocks}
