"""What the real gpg says of keys, and how it signs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from repowatch.system import gpg as module
from repowatch.system.gpg import Gpg, GpgError, Keyrings
from tests.kit.keyrings import Keyring

pytestmark = pytest.mark.client("gpg")

DAY = 86400


@pytest.fixture
def keyring() -> Iterator[Keyring]:
    with Keyring() as keyring:
        yield keyring


@pytest.fixture
def gpg(keyring: Keyring) -> Gpg:
    return Gpg(str(keyring.home))


def test_a_key_of_the_ring_signs(gpg: Gpg, keyring: Keyring) -> None:
    one, other = keyring.make_key("one"), keyring.make_key("other")
    assert keyring.good(b"content", gpg.sign(b"content", fingerprint=one)) == [one]
    assert keyring.good(b"content", gpg.sign(b"content", fingerprint=other)) == [other]


def test_keys_are_told_in_the_order_asked_for_with_their_public_parts(gpg: Gpg, keyring: Keyring) -> None:
    one, other = keyring.make_key("one"), keyring.make_key("other", expires="2d")
    first, second = gpg.keys([other, one])
    assert (first.fingerprint, second.fingerprint) == (other, one)
    assert (first.trouble, second.trouble) == (None, None)
    assert second.expires_at is None
    assert first.expires_at == pytest.approx(time.time() + 2 * DAY, abs=600)
    with Keyring() as client:
        client.gpg("--import", stdin=first.public)
        assert client.fingerprints() == [other]


def test_an_expired_key_is_in_trouble_from_that_moment_on(gpg: Gpg, keyring: Keyring) -> None:
    [key] = gpg.keys([keyring.make_key("one", expires="2d")])
    assert key.expires_at is not None
    assert key.trouble_at(key.expires_at - 1) is None
    assert f"the signing key {key.fingerprint} expired on 20" in str(key.trouble_at(key.expires_at))


def test_a_key_that_is_not_there_is_told_with_the_keyring(gpg: Gpg, keyring: Keyring) -> None:
    keyring.make_key("one")
    [key] = gpg.keys(["0" * 40])
    assert key.trouble == (
        f"the signing key {'0' * 40} is not in the keyring {keyring.home}; import it there"
    )


def test_a_key_without_its_secret_part_is_told(gpg: Gpg, keyring: Keyring) -> None:
    with Keyring() as other:
        fingerprint = other.make_key("one")
        keyring.gpg("--import", stdin=other.gpg("--export", fingerprint))
    [key] = gpg.keys([fingerprint])
    assert "has no secret part in the keyring" in str(key.trouble)


def test_a_revoked_key_is_told(gpg: Gpg, keyring: Keyring) -> None:
    fingerprint = keyring.make_key("one")
    revocation = (keyring.home / "openpgp-revocs.d" / f"{fingerprint}.rev").read_text()
    keyring.gpg("--import", stdin=revocation.replace(":-----BEGIN", "-----BEGIN").encode())
    [key] = gpg.keys([fingerprint])
    assert key.trouble == f"the signing key {fingerprint} is revoked; sign with another"


def test_a_key_that_can_only_certify_is_told(gpg: Gpg, keyring: Keyring) -> None:
    [key] = gpg.keys([keyring.make_key("one", usage="cert")])
    assert "is not one for signatures" in str(key.trouble)


def test_a_key_signs_by_its_subkey_until_that_expires(gpg: Gpg, keyring: Keyring) -> None:
    fingerprint = keyring.make_key("one", usage="cert")
    keyring.gpg("--passphrase", "", "--quick-add-key", fingerprint, "ed25519", "sign", "2d")
    [key] = gpg.keys([fingerprint])
    assert key.trouble is None
    assert key.expires_at == pytest.approx(time.time() + 2 * DAY, abs=600)
    assert keyring.good(b"content", gpg.sign(b"content", fingerprint=fingerprint)) == [fingerprint]


def test_a_locked_key_is_an_error_with_the_reason_and_no_question(gpg: Gpg, keyring: Keyring) -> None:
    fingerprint = keyring.make_key("one", passphrase="secret")
    keyring.end_agent()  # which knows the passphrase still
    with pytest.raises(GpgError, match=f"can not be signed with {fingerprint}: signing failed: ") as error:
        gpg.sign(b"content", fingerprint=fingerprint)
    assert str(error.value).endswith(
        "No pinentry: the key has a passphrase, and the agent of its keyring does not know it"
    )
    assert str(error.value).count("No pinentry") == 1


def test_a_passphrase_that_its_agent_knows_unlocks_a_key(gpg: Gpg, keyring: Keyring) -> None:
    fingerprint = keyring.make_key("one", passphrase="secret")
    keyring.gpg("--passphrase", "secret", "--detach-sign", "--output", "-", stdin=b"anything")
    assert keyring.good(b"content", gpg.sign(b"content", fingerprint=fingerprint)) == [fingerprint]


def stand_in(directory: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program called gpg, which finds none itself."""
    (directory / "gpg").write_text(f"#!/bin/sh\n{script}\n")
    (directory / "gpg").chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")


def test_a_gpg_that_hangs_is_ended(gpg: Gpg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, "exec sleep 100", monkeypatch)
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    with pytest.raises(GpgError, match=r"did not come back within 0\.1 s"):
        gpg.sign(b"content", fingerprint="0" * 40)


def test_a_gpg_that_is_killed_is_an_error(gpg: Gpg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, "kill -9 $$", monkeypatch)
    with pytest.raises(GpgError, match="gpg ended with -9 and said nothing"):
        gpg.sign(b"content", fingerprint="0" * 40)


def test_a_missing_gpg_is_told(gpg: Gpg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GpgError, match="there is no program gpg; install gnupg2"):
        gpg.keys(["0" * 40])


def test_a_missing_keyring_is_told_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(GpgError, match="there is no keyring"):
        Gpg(str(tmp_path / "gone")).keys(["0" * 40])
    assert not (tmp_path / "gone").exists()


def test_the_stamp_changes_with_the_keys(gpg: Gpg, keyring: Keyring) -> None:
    before = gpg.stamp()
    fingerprint = keyring.make_key("one")
    between = gpg.stamp()
    assert between != before
    keyring.gpg("--passphrase", "", "--quick-set-expire", fingerprint, "1y")
    assert gpg.stamp() != between


def test_an_agent_that_was_started_for_us_is_ended_at_the_end(keyring: Keyring) -> None:
    fingerprint = keyring.make_key("one")
    keyring.end_agent()
    keyrings = Keyrings()
    keyrings.open(str(keyring.home)).sign(b"content", fingerprint=fingerprint)
    assert keyring.has_agent()
    keyrings.close()
    assert not keyring.has_agent()


def test_an_agent_of_others_stays(keyring: Keyring) -> None:
    fingerprint = keyring.make_key("one")
    keyring.gpg("--detach-sign", "--output", "-", stdin=b"starts it")
    keyrings = Keyrings()
    keyrings.open(str(keyring.home)).sign(b"content", fingerprint=fingerprint)
    keyrings.close()
    assert keyring.has_agent()
