"""Identify the client of a request: its address behind trusted proxies, and the bytes under which it is counted.

`X-Forwarded-For` is used only from a trusted peer, and only back to the first address that is not trusted. A malformed
entry ends the walk at the last trusted hop.
IPv4 inside IPv6 (mapped, NAT64, 6to4) is unmapped before masking: otherwise all IPv4 clients would share one bucket.
"""

import functools
import ipaddress
from collections.abc import Iterable
from typing import Final, NamedTuple

import structlog

log = structlog.get_logger()

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_HOPS: Final = 32
CACHE_SIZE: Final = 32_768
"""At most about 15 MB."""
MAX_CACHED_CHARACTERS: Final = 64
"""A longer X-Forwarded-For is parsed for each request, which bounds the cache's memory."""
_6TO4: Final = 0x2002
"""The upper 16 bits of 2002::/16; the IPv4 address that owns the network is in the next 32."""
_EMBEDDING: Final = (0xFFFF, 0x64FF9B << 64)  # the upper 96 bits of ::ffff:0:0/96 and 64:ff9b::/96


class Client(NamedTuple):
    """`address` is passed upstream; `bucket` is what is counted (IPv6 by its network)."""

    address: str
    bucket: bytes
    via_trusted_proxy: bool


class Clients:
    """Identifies clients. Logs once if a private peer that is not trusted sends X-Forwarded-For."""

    def __init__(self, trusted: Iterable[str] = (), *, ipv6_prefix: int = 64) -> None:
        self._trusted = tuple(map(parse_network, trusted))
        self._ipv6_prefix = ipv6_prefix
        self._has_warned = False
        self._cached = functools.lru_cache(CACHE_SIZE)(self._identify)

    def of(self, peer: str, forwarded_for: str = "") -> Client:
        """Return the client of a connection from `peer` with this X-Forwarded-For, repeated lines joined."""
        identify = self._cached if len(forwarded_for) <= MAX_CACHED_CHARACTERS else self._identify
        return identify(peer, forwarded_for)

    def _identify(self, peer: str, forwarded_for: str) -> Client:
        if not forwarded_for:
            address = parse_address(peer)
            return Client(str(address), self._bucket(address), self._is_trusted(address))
        direct = self._cached(peer, "")
        if direct.via_trusted_proxy:
            found = self._walk(forwarded_for)
            return direct if found is None else Client(str(found), self._bucket(found), True)
        if parse_address(peer).is_private:
            self._warn_once()
        return direct

    def _walk(self, forwarded_for: str) -> Address | None:
        """Return the first address from the right that is not trusted, or the leftmost one that is well-formed."""
        last = None
        for entry in reversed(forwarded_for.split(",")[-MAX_HOPS:]):
            try:
                last = parse_hop(entry.strip(" \t"))
            except ValueError:
                return last
            if not self._is_trusted(last):
                return last
        return last

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)

    def _bucket(self, address: Address) -> bytes:
        if address.version == 4:
            return address.packed
        host_bits = 128 - self._ipv6_prefix
        return (int(address) >> host_bits << host_bits).to_bytes(16)

    def _warn_once(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "X-Forwarded-For from a private address ignored: "
                "if it is your ingress, name it in EDGE_TRUSTED_PROXIES; otherwise all its clients share one limit"
            )


def parse_address(text: str) -> Address:
    """Parse an address without its zone, IPv4 unmapped from IPv6. Raises ValueError."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if address.version == 6:
        value = int(address)
        if value >> 32 in _EMBEDDING:
            return ipaddress.IPv4Address(value & 0xFFFFFFFF)
        if value >> 112 == _6TO4:
            return ipaddress.IPv4Address(value >> 80 & 0xFFFFFFFF)
    return address


def parse_hop(text: str) -> Address:
    """Parse one X-Forwarded-For entry: an address, `address:port` or `[address]:port`. Raises ValueError."""
    if "%" in text:
        raise ValueError("a zone has no meaning on another host")
    if text.startswith("["):
        address, closed, port = text[1:].partition("]")
        if not closed or (port and not _is_port(port)):
            raise ValueError("malformed bracketed address")
        return parse_address(address)
    if text.count(":") == 1:
        address, _, port = text.partition(":")
        if not _is_port(f":{port}"):
            raise ValueError("malformed port")
        return parse_address(address)
    return parse_address(text)


def parse_network(cidr: str) -> Network:
    """Parse a CIDR; one inside ::ffff:0:0/96 or 64:ff9b::/96 means the IPv4 network, a 6to4 one its owner's address.

    Raises ValueError.
    """
    network = ipaddress.ip_network(cidr)
    if network.version == 6:
        value = int(network.network_address)
        if network.prefixlen >= 96 and value >> 32 in _EMBEDDING:
            return ipaddress.IPv4Network((value & 0xFFFFFFFF, network.prefixlen - 96))
        if network.prefixlen >= 16 and value >> 112 == _6TO4:
            if network.prefixlen < 48:  # 2002::/16 would become all of IPv4
                raise ValueError("6to4 clients are known by their IPv4 address: name IPv4 networks instead")
            return ipaddress.IPv4Network((value >> 80 & 0xFFFFFFFF, 32))
    return network


def _is_port(text: str) -> bool:
    digits = text[1:]
    return text[0] == ":" and digits.isascii() and digits.isdecimal() and int(digits) <= 65_535
