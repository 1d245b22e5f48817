import ipaddress

import pytest
from structlog.testing import capture_logs

from edge_limiter.ratelimit.identity import Clients, parse_network

INGRESS = "10.0.0.1"
CLIENTS = Clients(["10.0.0.0/8", "fd00::/8"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.9", "", "203.0.113.9"),
        ("203.0.113.9", "1.1.1.1", "203.0.113.9"),  # not a trusted peer: the header is a claim
        (INGRESS, "", INGRESS),
        (INGRESS, "203.0.113.9", "203.0.113.9"),
        (INGRESS, "1.1.1.1, 203.0.113.9", "203.0.113.9"),  # the client wrote the first entry itself
        (INGRESS, "203.0.113.9, 10.1.2.3", "203.0.113.9"),  # two hops of ours
        (INGRESS, "1.1.1.1,203.0.113.9", "203.0.113.9"),  # lines are joined in order
        (INGRESS, "203.0.113.9,10.1.2.3", "203.0.113.9"),
        (INGRESS, "10.1.2.3, 10.1.2.4", "10.1.2.3"),  # all ours: the farthest
        (INGRESS, "203.0.113.9, nonsense", INGRESS),  # malformed: stop at the last trusted hop
        (INGRESS, "203.0.113.9, , 10.1.2.3", "10.1.2.3"),
        (INGRESS, "203.0.113.9,", INGRESS),
        (INGRESS, "unknown", INGRESS),
        (INGRESS, "_hidden", INGRESS),
        (INGRESS, "203.0.113.9:4711", "203.0.113.9"),
        (INGRESS, "203.0.113.9:65535", "203.0.113.9"),
        (INGRESS, "203.0.113.9:65536", INGRESS),
        (INGRESS, "203.0.113.9:", INGRESS),
        (INGRESS, "[2001:db8::9]:443", "2001:db8::9"),
        (INGRESS, "[2001:db8::9]", "2001:db8::9"),
        (INGRESS, "[2001:db8::9", INGRESS),
        (INGRESS, "2001:db8::9", "2001:db8::9"),
        (INGRESS, "fe80::1%eth0", INGRESS),  # a zone means nothing here
        (INGRESS, "0313.0.0161.9", INGRESS),  # octal is not an address
        (INGRESS, "203.0.113.009", INGRESS),
        (INGRESS, "3405803785", INGRESS),  # nor is an integer
        (INGRESS, "٢٠٣.0.113.9", INGRESS),  # nor other digits
        (INGRESS, "203.0.113.9\t", "203.0.113.9"),
        (INGRESS, "::ffff:203.0.113.9", "203.0.113.9"),
        (INGRESS, "::ffff:cb00:7109", "203.0.113.9"),
        (INGRESS, "64:ff9b::203.0.113.9", "203.0.113.9"),
        (INGRESS, "2002:cb00:7109:1::2", "203.0.113.9"),  # 6to4
        (INGRESS, "203.0.113.9, ::ffff:10.1.2.3", "203.0.113.9"),  # a trusted hop, mapped
        ("::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "", "203.0.113.9"),
        ("fd00::1", "203.0.113.9", "203.0.113.9"),
        ("fe80::1%eth0", "", "fe80::1"),
    ],
)
def test_client_address__is_the_first_that_is_not_ours(peer: str, forwarded: str, address: str) -> None:
    assert CLIENTS.of(peer, forwarded).address == address


def test_more_entries_than_hops__are_not_walked() -> None:
    ours = ", ".join(["10.1.2.3"] * 40)
    assert CLIENTS.of(INGRESS, f"203.0.113.9, {ours}").address == "10.1.2.3"


def test_ipv6_clients_of_one_network__share_a_bucket() -> None:
    one, same, other = (CLIENTS.of(peer).bucket for peer in ("2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"))
    assert one == same != other


@pytest.mark.parametrize("form", ["::ffff:{}", "64:ff9b::{}", "{}"])
def test_ipv4_clients_inside_ipv6__keep_a_bucket_each(form: str) -> None:
    one, other = (CLIENTS.of(form.format(peer)).bucket for peer in ("198.51.100.1", "198.51.100.2"))
    assert one == ipaddress.ip_address("198.51.100.1").packed
    assert one != other


def test_trusted_network_written_as_mapped_ipv6__means_ipv4() -> None:
    clients = Clients(["::ffff:10.0.0.0/104"])
    assert clients.of(INGRESS, "203.0.113.9").address == "203.0.113.9"


def test_6to4_network__means_its_ipv4_owner() -> None:
    assert str(parse_network("2002:cb00:7109:5::/64")) == "203.0.113.9/32"


@pytest.mark.parametrize("cidr", ["2002::/16", "2002:cb00::/32"])
def test_6to4_network_of_many_owners__is_refused(cidr: str) -> None:
    with pytest.raises(ValueError, match="name IPv4 networks"):
        parse_network(cidr)


def test_6to4_networks_of_one_ipv4_address__share_a_bucket() -> None:
    buckets = {CLIENTS.of(f"2002:cb00:7109:{subnet:x}::1").bucket for subnet in range(5)}
    assert buckets == {CLIENTS.of("203.0.113.9").bucket}


def test_configured_prefix__widens_the_bucket() -> None:
    clients = Clients(ipv6_prefix=48)
    assert clients.of("2001:db8:1:2::1").bucket == clients.of("2001:db8:1:3::1").bucket


def test_forwarded_for_from_an_undeclared_private_peer__is_logged_once() -> None:
    clients = Clients()
    with capture_logs() as logs:
        clients.of("8.8.8.8", "1.1.1.1")
        assert logs == []
        clients.of("192.168.0.7", "1.1.1.1")
        clients.of("192.168.0.8", "1.1.1.1")
    assert ["EDGE_TRUSTED_PROXIES" in entry["event"] for entry in logs] == [True]


def test_long_forwarded_for__is_not_cached() -> None:
    chain = ", ".join(["203.0.113.9"] * 40)
    assert CLIENTS.of(INGRESS, chain) == CLIENTS.of(INGRESS, "203.0.113.9")
    assert CLIENTS.of(INGRESS, chain) is not CLIENTS.of(INGRESS, chain)
