"""Who is at the other end, and whose word is taken for it."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repowatch.errors import UsageError
from repowatch.web.rights.peer import (
    UNKNOWN,
    Peer,
    Trusted,
    address_of,
    is_in,
    is_safe_for_passwords,
    network_of,
    peer_of,
)

PROXY, CLIENT = "10.0.0.1", "192.0.2.7"
TRUSTED = Trusted.of(["127.0.0.1", "10.0.0.0/8", "fd00::/8", "unix"])


def behind(proxy: str | None = PROXY, *, scheme: str = "http", **fields: str) -> Peer:
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return peer_of(proxy, scheme, named, trusted=TRUSTED)


@pytest.mark.parametrize(
    "fields",
    [
        {"x_forwarded_for": "127.0.0.1", "x_forwarded_proto": "https"},
        {"forwarded": "for=127.0.0.1;proto=https"},
    ],
)
@pytest.mark.parametrize("trusted", [Trusted(), TRUSTED])
def test_strangers_are_not_believed(fields: dict[str, str], trusted: Trusted) -> None:
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    assert peer_of(CLIENT, "http", named, trusted=trusted) == Peer(CLIENT, "http", proxied=False)


def test_a_unix_socket_is_believed_only_where_it_is_trusted() -> None:
    fields = {"x-forwarded-for": CLIENT}
    assert peer_of(None, "http", fields, trusted=Trusted.of([PROXY])) == Peer(None, "http", proxied=False)
    assert peer_of(None, "http", fields, trusted=Trusted.of(["unix"])) == Peer(CLIENT, "http", proxied=True)


def test_a_trusted_proxy_that_forwards_nothing_is_the_client() -> None:
    assert behind() == Peer(PROXY, "http", proxied=False)
    assert behind(None) == Peer(None, "http", proxied=False)


@pytest.mark.parametrize(
    ("field", "address"),
    [
        (CLIENT, CLIENT),
        (f"198.51.100.9, {CLIENT}", CLIENT),
        (f"127.0.0.1, {CLIENT}", CLIENT),
        (f"{CLIENT}, 10.1.2.3", CLIENT),
        (f"198.51.100.9,{CLIENT} ,\t10.1.2.3, 10.9.9.9", CLIENT),
        ("10.3.3.3, 10.1.2.3", "10.3.3.3"),
        (f"{CLIENT}:5678", CLIENT),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:DB8:0::1]", "2001:db8::1"),
        ("[2001:db8::1]:80", "2001:db8::1"),
        (f"::ffff:{CLIENT}", CLIENT),
        (f"{CLIENT}, ::ffff:10.1.2.3", CLIENT),
        (f"{CLIENT}, [fd00::7]:4711", CLIENT),
    ],
)
def test_x_forwarded_for_is_walked_from_the_right_past_trusted_addresses(field: str, address: str) -> None:
    assert behind(x_forwarded_for=field) == Peer(address, "http", proxied=True)


@pytest.mark.parametrize(
    ("field", "address"),
    [
        (f"for={CLIENT}", CLIENT),
        (f'For="{CLIENT}:4711"', CLIENT),
        (f"by=10.0.0.1;for={CLIENT};host=rpm.example.org", CLIENT),
        (f"for=127.0.0.1, for={CLIENT}", CLIENT),
        (f"for={CLIENT}, for=10.1.2.3;proto=http", CLIENT),
        ('for="[2001:db8::1]:4711"', "2001:db8::1"),
        ('for="[2001:db8::1]:_port"', "2001:db8::1"),
        (f'for="{CLIENT[:3]}\\{CLIENT[3:]}"', CLIENT),
        (f'for="never closed, for={CLIENT}', CLIENT),
    ],
)
def test_forwarded_is_walked_alike(field: str, address: str) -> None:
    assert behind(forwarded=field) == Peer(address, "http", proxied=True)


@pytest.mark.parametrize(
    "field",
    [
        "",
        "unknown",
        "_hidden",
        "1.2.3",
        "300.1.1.1",
        f"{CLIENT} x",
        f"{CLIENT},",
        "::1%eth0",
        "[::1",
        "1.1.1.1:x",
    ],
)
def test_what_is_malformed_leaves_the_last_address_that_was_told(field: str) -> None:
    assert behind(x_forwarded_for=field) == Peer(PROXY, "http", proxied=True)
    assert behind(x_forwarded_for=f"{CLIENT}, {field}, 10.1.2.3") == Peer("10.1.2.3", "http", proxied=True)
    assert behind(None, x_forwarded_for=field) == Peer(UNKNOWN, "http", proxied=True)


@pytest.mark.parametrize(
    "field",
    [
        "",
        "for",
        "for=",
        "for=unknown",
        "for=_hidden",
        f"for={CLIENT};for={CLIENT}",
        f"for ={CLIENT}",
        "for=::1",
        "proto=https;",
        f"for={CLIENT};;proto=https",
        f'for="{CLIENT}',
    ],
)
def test_a_malformed_forwarded_element_tells_no_address(field: str) -> None:
    assert behind(forwarded=field).address == PROXY
    assert behind(None, forwarded=field).address == UNKNOWN


def test_forwarded_does_not_count_beside_the_fields_that_usual_proxies_write() -> None:
    forged = "for=127.0.0.1;proto=https"
    assert behind(forwarded=forged, x_forwarded_for=CLIENT) == Peer(CLIENT, "http", proxied=True)
    assert behind(forwarded=forged, x_forwarded_proto="http") == Peer(PROXY, "http", proxied=True)


@pytest.mark.parametrize(
    ("proto", "scheme"),
    [
        ("https", "https"),
        ("HTTPS", "https"),
        ("http, https", "https"),
        ("https,http", "http"),
        ("ftp", "http"),
        ("", "http"),
        ("https,", "http"),
    ],
)
def test_the_last_scheme_that_a_proxy_tells_is_the_client_s(proto: str, scheme: str) -> None:
    assert behind(x_forwarded_for=CLIENT, x_forwarded_proto=proto) == Peer(CLIENT, scheme, proxied=True)


def test_a_proxy_that_speaks_tls_may_tell_of_a_client_that_does_not() -> None:
    assert behind(scheme="https", x_forwarded_for=CLIENT, x_forwarded_proto="http").scheme == "http"
    assert behind(scheme="https", x_forwarded_for=CLIENT).scheme == "https"


def test_forwarded_tells_the_scheme_beside_the_client_s_address() -> None:
    assert behind(forwarded=f"for={CLIENT};proto=HTTPS, for=10.1.2.3;proto=http").scheme == "https"
    assert behind(forwarded="for=198.51.100.9;proto=https, for=192.0.2.7;proto=http").scheme == "http"
    assert behind(forwarded=f"for={CLIENT};proto=gopher").scheme == "http"


def test_a_chain_without_end_is_not_walked_to_its_end() -> None:
    assert behind(x_forwarded_for=f"{CLIENT}, " + "10.1.2.3, " * 10_000 + "10.1.2.3").address == "10.1.2.3"


_ANY_LIST = (
    st.lists(
        st.sampled_from(
            [
                "10.0.0.1",
                "1.2.3.4:5",
                "[::1]",
                '"',
                "\\",
                "for=",
                "proto=https",
                ";",
                ",",
                " ",
                "é",
                "%",
                "\0",
            ]
        )
    ).map("".join)
    | st.text()
)


@given(
    address=st.none() | st.sampled_from([PROXY, CLIENT, "::1", "fe80::1%eth0"]) | st.text(),
    fields=st.dictionaries(
        st.sampled_from(["x-forwarded-for", "x-forwarded-proto", "forwarded"]), _ANY_LIST, max_size=3
    ),
)
def test_any_fields_give_an_address_or_nothing(address: str | None, fields: dict[str, str]) -> None:
    peer = peer_of(address, "http", fields, trusted=TRUSTED)
    assert peer.scheme in ("http", "https")
    if peer.proxied:
        assert peer.address is not None
        assert peer.address == UNKNOWN or ipaddress.ip_address(peer.address)


def test_addresses_of_a_connection_are_put_into_their_shortest_form() -> None:
    for address, normal in [("::ffff:192.0.2.7", CLIENT), ("fe80::1%eth0", "fe80::1"), ("odd", "odd")]:
        assert peer_of(address, "http", {}, trusted=Trusted()).address == normal


def test_an_ipv4_address_in_an_ipv6_one_is_the_ipv4_address() -> None:
    assert address_of("::ffff:192.0.2.7") == ipaddress.ip_address(CLIENT)
    assert network_of("::ffff:10.0.0.0/104") == network_of("10.0.0.0/8")
    assert network_of("::/96") == ipaddress.ip_network("::/96")
    assert is_in("::ffff:10.1.1.1", [network_of("10.0.0.0/8")])
    assert not is_in("10.1.1.1", [network_of("::/0")])
    assert not is_in(UNKNOWN, [network_of("0.0.0.0/0"), network_of("::/0")])


def test_a_link_local_address_counts_without_its_zone() -> None:
    assert is_in("fe80::1%eth0", [network_of("fe80::/10")])


@pytest.mark.parametrize("text", ["", "localhost", "10.0.0.1/8", "10.0.0.0/33", "10.0.0", "unix:/run/x"])
def test_what_is_no_network_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=r"write an address or a network, such as"):
        Trusted.of([text])


@pytest.mark.parametrize(
    ("address", "scheme", "safe"),
    [
        (CLIENT, "https", True),
        (CLIENT, "http", False),
        ("127.0.0.1", "http", True),
        ("127.8.8.8", "http", True),
        ("::1", "http", True),
        (None, "http", True),
        (UNKNOWN, "http", False),
        (UNKNOWN, "https", True),
    ],
)
def test_passwords_are_safe_by_tls_and_from_this_machine(
    address: str | None, scheme: str, safe: bool
) -> None:
    assert is_safe_for_passwords(Peer(address, scheme, proxied=False), over_http=False) is safe
    assert is_safe_for_passwords(Peer(address, scheme, proxied=False), over_http=True)


def test_a_password_that_came_to_a_local_proxy_in_the_clear_is_not_safe() -> None:
    assert not is_safe_for_passwords(behind("127.0.0.1", x_forwarded_for=CLIENT), over_http=False)
    assert not is_safe_for_passwords(behind(None, x_forwarded_for=CLIENT), over_http=False)
    told = behind("127.0.0.1", x_forwarded_for=CLIENT, x_forwarded_proto="https")
    assert is_safe_for_passwords(told, over_http=False)
