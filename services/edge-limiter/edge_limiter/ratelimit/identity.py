"""Who is calling: the client address behind trusted proxies, and the bytes under which it is counted.

`X-Forwarded-For` is believed only from a trusted peer, and only back to the first address that is not trusted.
IPv4 inside IPv6 (mapped, NAT64, 6to4) is unmapped by its bits before masking: masking first would put all IPv4 clients
into one bucket. Refuses to guess: a malformed entry ends the walk at the last trusted hop.
"""

import functools
import ipaddress
from collections.abc import Callable, Iterable, Sequence
from socket import AF_INET, inet_pton
from typing import Final, NamedTuple

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_HOPS: Final = 32
_MEMO_SIZE: Final = 16_384
_6TO4: Final = 0x2002
"""The upper 16 bits of 2002::/16; the IPv4 address that owns the network is in the next 32."""
_EMBEDDING: Final = (0xFFFF, 0x64FF9B << 64)  # the upper 96 bits of ::ffff:0:0/96 and 64:ff9b::/96


class Client(NamedTuple):
    """`address` is passed upstream; `bucket` is what is counted (IPv6 by its network)."""

    address: str
    bucket: bytes
    via_trusted_proxy: bool


class Clients:
    """Finds the client of a connection. `on_undeclared_proxy` hears once of a private peer that sends XFF."""

    def __init__(
        self,
        trusted: Iterable[str] = (),
        *,
        ipv6_prefix: int = 64,
        on_undeclared_proxy: Callable[[str], None] = lambda peer: None,
    ) -> None:
        self._trusted = tuple(parse_network(cidr) for cidr in trusted)
        self._ipv6_prefix = ipv6_prefix
        self._on_undeclared_proxy: Callable[[str], None] | None = on_undeclared_proxy
        self._direct = functools.lru_cache(_MEMO_SIZE)(self._client_at)
        self._trusted_ipv4 = tuple(
            (int(network.netmask), int(network.network_address)) for network in self._trusted if network.version == 4
        )

    def of(self, peer: str, forwarded_for: Sequence[str] = ()) -> Client:
        """The client of a connection from `peer` with these X-Forwarded-For lines, in order."""
        direct = self._direct(peer)
        if not forwarded_for:
            return direct
        if not direct.via_trusted_proxy:
            self._warn_once(peer)
            return direct
        if len(forwarded_for) == 1 and (client := self._behind_one_proxy(forwarded_for[0])) is not None:
            return client
        return self._client(self._walk(parse_address(peer), forwarded_for), via_trusted_proxy=True)

    def _client_at(self, peer: str) -> Client:
        address = parse_address(peer)
        return self._client(address, via_trusted_proxy=self._is_trusted(address))

    def _behind_one_proxy(self, line: str) -> Client | None:
        """The usual line, one IPv4 address that is not ours, without the price of `ipaddress`; None for any other."""
        try:
            packed = inet_pton(AF_INET, line)
        except (OSError, ValueError):
            return None
        value = int.from_bytes(packed)
        for mask, network in self._trusted_ipv4:
            if value & mask == network:
                return None
        return Client(line, packed, True)

    def _client(self, address: Address, *, via_trusted_proxy: bool) -> Client:
        return Client(str(address), self._bucket(address), via_trusted_proxy)

    def _walk(self, peer: Address, lines: Sequence[str]) -> Address:
        """From the right to the first address that is not ours."""
        last = peer
        for entry in reversed(",".join(lines).split(",")[-MAX_HOPS:]):
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

    def _warn_once(self, peer: str) -> None:
        if self._on_undeclared_proxy is not None and parse_address(peer).is_private:
            self._on_undeclared_proxy(peer)
            self._on_undeclared_proxy = None


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
    """One X-Forwarded-For entry: an address, or `address:port` or `[address]:port`. Raises ValueError."""
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
