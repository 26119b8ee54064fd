"""Certificates that are read, read again, and refused; and who a client with one is."""

from __future__ import annotations

import logging
import shutil
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from repowatch.errors import UsageError
from repowatch.web.http.tls import LOOK_EVERY, Certificates, identity_of
from tests.kit.certificates import Authority, Pair, encrypted, end_of
from tests.kit.clock import FakeClock


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.server()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def certificates(pair: Pair, *, clock: FakeClock, client_ca: Path | None = None) -> Certificates:
    return Certificates(
        certificate=str(pair.certificate),
        key=str(pair.key),
        client_ca=str(client_ca) if client_ca else None,
        clock=clock,
    )


def copied(pair: Pair, to: Pair) -> None:
    shutil.copyfile(pair.certificate, to.certificate)
    shutil.copyfile(pair.key, to.key)


@contextmanager
def connected(
    server: ssl.SSLContext, client: ssl.SSLContext, *, session: ssl.SSLSession | None = None
) -> Iterator[tuple[ssl.SSLSocket, ssl.SSLSocket]]:
    """The server's and the client's end of a connection after the handshake, which raises where it fails."""
    raw_server, raw_client = socket.socketpair()
    raw_server.setblocking(False)
    raw_client.setblocking(False)
    with (
        server.wrap_socket(raw_server, server_side=True, do_handshake_on_connect=False) as server_end,
        client.wrap_socket(
            raw_client, server_hostname="localhost", do_handshake_on_connect=False, session=session
        ) as client_end,
    ):
        waiting = [client_end, server_end]
        while waiting:
            waiting = [end for end in waiting if not _is_done(end)]
        yield server_end, client_end


def _is_done(end: ssl.SSLSocket) -> bool:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def number_of(context: ssl.SSLContext, authority: Authority) -> object:
    """The serial number of the certificate that a server with the context shows."""
    with connected(context, authority.client_context()) as (_, client):
        return (client.getpeercert() or {})["serialNumber"]


def test_a_client_that_trusts_the_authority_gets_tls_1_3_and_http_1_1(
    authority: Authority, pair: Pair, clock: FakeClock
) -> None:
    client = authority.client_context()
    client.set_alpn_protocols(["h2", "http/1.1"])
    with connected(certificates(pair, clock=clock).context(), client) as (server_end, client_end):
        assert client_end.version() == "TLSv1.3"
        assert client_end.selected_alpn_protocol() == "http/1.1"
        assert identity_of(server_end) is None


def test_a_client_of_tls_1_2_is_served(authority: Authority, pair: Pair, clock: FakeClock) -> None:
    client = authority.client_context()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    with connected(certificates(pair, clock=clock).context(), client) as (_, client_end):
        assert client_end.version() == "TLSv1.2"
        assert client_end.compression() is None


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_a_client_of_tls_1_1_is_refused(authority: Authority, pair: Pair, clock: FakeClock) -> None:
    client = authority.client_context()
    client.set_ciphers("DEFAULT:@SECLEVEL=0")
    client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_1
    context = certificates(pair, clock=clock).context()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # so that nothing but the least version refuses it
    with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"), connected(context, client):
        pass


def test_renegotiation_and_compression_are_off_and_the_server_chooses_the_cipher(
    pair: Pair, clock: FakeClock
) -> None:
    options = certificates(pair, clock=clock).context().options
    for option in (ssl.OP_NO_RENEGOTIATION, ssl.OP_NO_COMPRESSION):
        assert option in options
    assert ssl.OP_CIPHER_SERVER_PREFERENCE not in options  # the client knows what its processor does fast


def test_the_chain_in_the_certificate_file_is_shown_to_clients(
    authority: Authority, tmp_path: Path, clock: FakeClock
) -> None:
    middle = Authority(tmp_path, "middle", above=authority)
    leaf = middle.server()
    full = Pair(tmp_path / "fullchain.pem", leaf.key)
    full.certificate.write_bytes(leaf.certificate.read_bytes() + middle.certificate.read_bytes())
    served = certificates(full, clock=clock)
    with connected(served.context(), authority.client_context()):
        pass
    assert served.expires_at() == end_of(leaf.certificate)


@pytest.mark.parametrize(
    "days", [1, 20_000]
)  # the second is written as GeneralizedTime (RFC 5280 section 4.1.2.5)
def test_the_expiry_is_what_openssl_says(authority: Authority, clock: FakeClock, days: int) -> None:
    pair = authority.server(days=days)
    assert certificates(pair, clock=clock).expires_at() == end_of(pair.certificate)


def test_an_expired_certificate_is_served_with_a_warning(
    authority: Authority, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    pair = authority.server(days=-1)
    assert certificates(pair, clock=clock).expires_at() < clock.now()
    assert f"{pair.certificate}: expired at " in caplog.text


def test_a_new_pair_is_used_at_the_next_look(authority: Authority, tmp_path: Path, clock: FakeClock) -> None:
    served = Pair(tmp_path / "server.pem", tmp_path / "server.key")
    copied(authority.server(), served)
    kept = certificates(served, clock=clock)
    old = kept.context()
    new = authority.server()
    copied(new, served)
    assert kept.context() is old
    clock.advance(LOOK_EVERY)
    assert LOOK_EVERY <= 1
    read = kept.context()
    assert number_of(read, authority) != number_of(old, authority)
    clock.advance(LOOK_EVERY)
    assert kept.context() is read


def test_files_that_did_not_change_are_not_read_again(pair: Pair, clock: FakeClock) -> None:
    kept = certificates(pair, clock=clock)
    old = kept.context()
    clock.advance(LOOK_EVERY)
    assert kept.context() is old


def test_symbolic_links_that_point_elsewhere_are_followed(
    authority: Authority, tmp_path: Path, clock: FakeClock
) -> None:
    served = Pair(tmp_path / "fullchain.pem", tmp_path / "privkey.pem")
    pairs = authority.server(days=1), authority.server(days=2)
    for pair in pairs:
        for link, target in ((served.certificate, pair.certificate), (served.key, pair.key)):
            link.with_suffix(".new").symlink_to(target)
            link.with_suffix(".new").rename(link)
        if pair is pairs[0]:
            kept = certificates(served, clock=clock)
    clock.advance(LOOK_EVERY)
    kept.context()
    assert kept.expires_at() == end_of(pairs[1].certificate)


def test_a_change_behind_a_symbolic_link_is_seen(
    authority: Authority, tmp_path: Path, clock: FakeClock
) -> None:
    served = Pair(tmp_path / "server.pem", tmp_path / "server.key")
    copied(authority.server(), served)
    links = Pair(tmp_path / "link.pem", tmp_path / "link.key")
    links.certificate.symlink_to(served.certificate)
    links.key.symlink_to(served.key)
    kept = certificates(links, clock=clock)
    new = authority.server(days=2)
    copied(new, served)
    clock.advance(LOOK_EVERY)
    kept.context()
    assert kept.expires_at() == end_of(new.certificate)


def test_a_certificate_without_its_key_yet_leaves_the_old_pair_and_is_logged_once(
    authority: Authority, tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    served = Pair(tmp_path / "server.pem", tmp_path / "server.key")
    copied(authority.server(), served)
    kept = certificates(served, clock=clock)
    old, number = kept.context(), number_of(kept.context(), authority)
    new = authority.server()
    shutil.copyfile(new.certificate, served.certificate)
    for _ in range(3):
        clock.advance(LOOK_EVERY)
        assert kept.context() is old
    assert number_of(old, authority) == number
    assert caplog.text.count("the old one stays") == 1
    assert f"{served.key}: the key does not belong to the certificate" in caplog.text

    shutil.copyfile(new.key, served.key)
    clock.advance(LOOK_EVERY)
    assert number_of(kept.context(), authority) == number_of(
        certificates(new, clock=clock).context(), authority
    )


def test_another_failure_is_logged_as_well(
    authority: Authority, tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    served = Pair(tmp_path / "server.pem", tmp_path / "server.key")
    copied(authority.server(), served)
    kept = certificates(served, clock=clock)
    old = kept.context()
    served.key.write_text("")
    clock.advance(LOOK_EVERY)
    assert kept.context() is old
    served.key.unlink()
    clock.advance(LOOK_EVERY)
    assert kept.context() is old
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 2
    assert "holds no private key" in errors[0]
    assert "no such file" in errors[1]


def test_a_new_client_ca_is_used_at_the_next_look(
    authority: Authority, stranger: Authority, pair: Pair, tmp_path: Path, clock: FakeClock
) -> None:
    client_ca = tmp_path / "clients.pem"
    shutil.copyfile(stranger.certificate, client_ca)
    kept = certificates(pair, clock=clock, client_ca=client_ca)
    shutil.copyfile(authority.certificate, client_ca)
    clock.advance(LOOK_EVERY)
    with connected(kept.context(), authority.client_context(authority.client("anna"))) as (server_end, _):
        assert identity_of(server_end) == "anna"


def message(pair: Pair, *, client_ca: Path | None = None) -> str:
    with pytest.raises(UsageError) as raised:
        certificates(pair, clock=FakeClock(), client_ca=client_ca)
    return str(raised.value)


def test_a_missing_file_is_named(pair: Pair, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    for text, key in (
        (message(Pair(missing, pair.key)), "tls.certificate"),
        (message(Pair(pair.certificate, missing)), "tls.key"),
        (message(pair, client_ca=missing), "tls.client_ca"),
    ):
        assert text.startswith(f"{missing}: ")
        assert "no such file or directory" in text
        assert key in text


def test_a_directory_in_the_place_of_a_file_is_named(pair: Pair, tmp_path: Path) -> None:
    assert message(Pair(tmp_path, pair.key)).startswith(f"{tmp_path}: the certificate can not be read")


def test_a_file_without_pem_is_named(pair: Pair, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("no certificate\n")
    assert message(Pair(other, pair.key)).startswith(f"{other}: holds no certificate")
    assert message(Pair(pair.certificate, other)).startswith(f"{other}: holds no private key")
    assert message(pair, client_ca=other).startswith(f"{other}: holds no certificate")
    assert message(Pair(pair.key, pair.certificate)).startswith(f"{pair.key}: holds no certificate")


def test_a_key_of_another_pair_is_refused(authority: Authority, pair: Pair) -> None:
    other = authority.server()
    text = message(Pair(pair.certificate, other.key))
    assert text.startswith(f"{other.key}: the key does not belong to the certificate in {pair.certificate}")


def test_an_encrypted_key_is_refused_without_a_prompt(pair: Pair) -> None:
    locked = encrypted(pair, "secret")
    assert message(locked).startswith(f"{locked.key}: the key is encrypted")


@pytest.mark.parametrize("line", ["A" * 63, "A" * 64, "!" * 64, ""])
def test_a_damaged_certificate_is_named(pair: Pair, tmp_path: Path, line: str) -> None:
    damaged = tmp_path / "damaged.pem"
    lines = pair.certificate.read_text().splitlines()
    damaged.write_text("\n".join([lines[0], line, *lines[2:]]))
    assert message(Pair(damaged, pair.key)).startswith(str(damaged))


def test_a_damaged_key_is_named(pair: Pair, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.key"
    lines = pair.key.read_text().splitlines()
    damaged.write_text("\n".join([lines[0], *lines[2:]]))
    assert str(damaged) in message(Pair(pair.certificate, damaged))


def test_a_damaged_client_ca_is_named(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.pem"
    lines = authority.certificate.read_text().splitlines()
    damaged.write_text("\n".join([lines[0], *lines[2:]]))
    assert message(pair, client_ca=damaged).startswith(f"{damaged}: can not be used")


def test_no_client_certificate_is_asked_for_without_an_authority(
    authority: Authority, pair: Pair, clock: FakeClock
) -> None:
    context = certificates(pair, clock=clock).context()
    with connected(context, authority.client_context(authority.client("anna"))) as (server_end, _):
        assert identity_of(server_end) is None


def identity(authority: Authority, shown: Pair | None, *, client_ca: Path | None = None) -> str | None:
    """Who a client is that shows the pair, or its refusal as ssl.SSLError."""
    server = certificates(authority.server(), clock=FakeClock(), client_ca=client_ca or authority.certificate)
    with connected(server.context(), authority.client_context(shown)) as (server_end, _):
        return identity_of(server_end)


def test_a_client_is_the_common_name_of_its_certificate(authority: Authority) -> None:
    assert identity(authority, authority.client("anna")) == "anna"
    assert identity(authority, authority.client("Jörg Müller")) == "Jörg Müller"
    assert (
        identity(authority, authority.issue("/C=DE/O=Example/OU=CI/CN=builder.example.org"))
        == "builder.example.org"
    )


def test_a_client_without_a_certificate_is_nobody(authority: Authority) -> None:
    assert identity(authority, None) is None


def test_a_client_that_resumes_its_session_is_who_it_was(
    authority: Authority, pair: Pair, clock: FakeClock
) -> None:
    server = certificates(pair, clock=clock, client_ca=authority.certificate).context()
    client = authority.client_context(authority.client("anna"))
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    with connected(server, client) as (_, client_end):
        session = client_end.session
    with connected(server, client, session=session) as (server_end, client_end):
        assert client_end.session_reused
        assert identity_of(server_end) == "anna"


def test_a_certificate_of_another_authority_is_refused(authority: Authority, stranger: Authority) -> None:
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        identity(authority, stranger.client("anna"))


def test_an_expired_certificate_of_a_client_is_refused(authority: Authority) -> None:
    with pytest.raises(ssl.SSLError, match="certificate has expired"):
        identity(authority, authority.client("anna", days=-1))


def test_a_certificate_made_for_servers_is_refused(authority: Authority) -> None:
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        identity(authority, authority.server("anna"))


def test_an_intermediate_authority_vouches_for_its_own_clients_alone(
    authority: Authority, tmp_path: Path
) -> None:
    middle = Authority(tmp_path, "middle", above=authority)
    assert identity(authority, middle.client("anna"), client_ca=middle.certificate) == "anna"
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        identity(authority, authority.client("anna"), client_ca=middle.certificate)


@pytest.mark.parametrize(
    "subject",
    ["/O=Example", "/CN=anna/CN=ben", "/CN=anna+CN=ben", "/CN=an:na", "/CN=@admins", "/CN=anyone"]
    + [f"/CN=an{character}na" for character in "\n\t\x7f\u202e\u2028"],
)
def test_a_certificate_whose_name_can_be_no_user_is_nobody(authority: Authority, subject: str) -> None:
    assert identity(authority, authority.issue(subject)) is None
