"""Signatures beside repomd.xml: which there are at which moment, and when something is published anew."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from repowatch.repository.publisher import Publisher
from repowatch.repository.signed import mismatch
from repowatch.repository.signing import SignBy
from repowatch.system.gpg import Gpg, GpgError
from tests.kit.clock import FakeClock
from tests.kit.keyrings import Keyring
from tests.unit.repository.test_publisher import metadata

pytestmark = pytest.mark.client("gpg")


class Repository:
    """A directory, a keyring, and the publisher that uses both."""

    def __init__(self, root: Path, keyring: Keyring) -> None:
        self.keyring = keyring
        self.repodata = root / "repodata"
        self.root = root
        self.clock = FakeClock()
        for name in ("staging", "cache"):
            (root / ".repowatch" / name).mkdir(parents=True)
        self.first, self.second = keyring.make_key("first"), keyring.make_key("second")
        self.publisher = self.opened(self.first)

    def by(self, *keys: str) -> SignBy | None:
        return SignBy(Gpg(str(self.keyring.home)), keys) if keys else None

    def opened(self, *keys: str) -> Publisher:
        """A publisher as after a restart."""
        publisher = Publisher(
            str(self.root),
            staging=str(self.root / ".repowatch" / "staging"),
            clock=self.clock,
            keep_space=None,
            sign_by=self.by(*keys),
        )
        publisher.take_over()
        return publisher

    def publish(self, *names: str) -> None:
        self.publisher.publish(metadata(*names, write=self.publisher.write_aside))

    def signers(self) -> list[str]:
        """By whom what lies on the disk is signed. Raises AssertionError where a signature is not good."""
        content = [(self.repodata / name).read_bytes() for name in ("repomd.xml", "repomd.xml.asc")]
        return self.keyring.good(*content)

    def files(self) -> set[str]:
        """What lies in repodata/ beside metadata."""
        return {name for name in os.listdir(self.repodata) if not name.endswith(".xml.gz")}


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Keyring() as keyring:
        yield Repository(tmp_path, keyring)


def test_what_is_published_is_signed_and_has_the_public_key_with_it(repository: Repository) -> None:
    repository.publish("a")
    assert repository.signers() == [repository.first]
    assert repository.files() == {
        "repomd.xml",
        "repomd.xml.asc",
        "repomd.xml.key",
        f"{repository.first}.key",
    }
    assert repository.publisher.signing.is_right()
    assert repository.publisher.signing.key_files() == ("repodata/repomd.xml.key",)
    signed = repository.publisher.signing.signed
    assert signed is not None
    assert signed.repomd == (repository.repodata / "repomd.xml").read_bytes()
    assert signed.signature == (repository.repodata / "repomd.xml.asc").read_bytes()


def test_of_several_keys_the_first_signs_first_and_last(repository: Repository) -> None:
    repository.publisher.signing.want(repository.by(repository.first, repository.second))
    repository.publish("a")
    assert repository.signers() == [repository.first, repository.second, repository.first]
    text = (repository.repodata / "repomd.xml.asc").read_text()
    assert text.count("-----BEGIN PGP SIGNATURE-----") == 3, "rpm-sequoia wants a block for each"
    keys = (repository.repodata / "repomd.xml.key").read_text()
    assert keys.count("-----BEGIN PGP PUBLIC KEY BLOCK-----") == 2
    assert all(
        (repository.repodata / f"{key}.key").read_text() in keys
        for key in (repository.first, repository.second)
    )


def test_other_keys_are_not_right_before_they_have_signed(repository: Repository) -> None:
    repository.publish("a")
    repository.publisher.signing.want(repository.by(repository.second))
    assert not repository.publisher.signing.is_right()
    assert not repository.publisher.is_published(metadata("a"))
    repository.publish("a")
    assert repository.publisher.signing.is_right()
    assert repository.signers() == [repository.second]
    assert f"{repository.first}.key" not in repository.files()


def test_nothing_of_signing_is_left_when_it_is_turned_off(repository: Repository) -> None:
    repository.publish("a")
    repository.publisher.signing.want(None)
    assert not repository.publisher.signing.is_right()
    repository.publish("a")
    assert repository.files() == {"repomd.xml"}
    assert repository.publisher.signing.is_right()
    assert repository.publisher.signing.signed is None
    assert repository.opened().signing.is_right()


def test_a_signature_of_another_tool_does_not_outlive_its_repomd(repository: Repository) -> None:
    repository.publisher.signing.want(None)
    repository.publish("a")
    (repository.repodata / "repomd.xml.asc").write_text("of another tool")
    publisher = repository.publisher = repository.opened()
    assert publisher.signing.is_right(), "it fits, as far as we know"
    repository.publish("b")
    assert repository.files() == {"repomd.xml"}


def test_a_start_finds_its_own_signature_right(repository: Repository) -> None:
    repository.publish("a")
    publisher = repository.opened(repository.first)
    assert publisher.is_published(metadata("a"))
    assert publisher.signing.signed is not None


@pytest.mark.parametrize("name", ["repomd.xml", "repomd.xml.asc"])
def test_a_start_that_finds_one_of_the_pair_from_another_publication_signs_anew(
    repository: Repository, name: str
) -> None:
    repository.publish("a")
    before = (repository.repodata / name).read_bytes()
    repository.publish("b")
    (repository.repodata / name).write_bytes(before)
    publisher = repository.opened(repository.first)
    assert not publisher.signing.is_right()
    assert publisher.signing.signed is None


@pytest.mark.parametrize("damage", ["removed", "cut short", "odd"])
def test_without_its_note_a_start_signs_anew(repository: Repository, damage: str) -> None:
    repository.publish("a")
    note = repository.root / ".repowatch" / "cache" / "signed"
    if damage == "removed":
        note.unlink()
    else:
        note.write_bytes(note.read_bytes()[:-9] if damage == "cut short" else b"[1]")
    assert not repository.opened(repository.first).signing.is_right()


def test_a_start_by_other_keys_or_none_signs_anew(repository: Repository) -> None:
    repository.publish("a")
    assert not repository.opened(repository.second).signing.is_right()
    assert not repository.opened(repository.second, repository.first).signing.is_right()
    assert not repository.opened().signing.is_right()


@pytest.mark.parametrize("name", ["repomd.xml.asc", "repomd.xml.key"])
def test_who_writes_the_files_of_signing_disturbs(repository: Repository, name: str) -> None:
    repository.publish("a")
    assert not repository.publisher.is_disturbed()
    (repository.repodata / name).unlink()
    assert repository.publisher.is_disturbed()


def test_a_key_that_was_prolonged_is_published(repository: Repository) -> None:
    repository.publish("a")
    repository.keyring.gpg("--passphrase", "", "--quick-set-expire", repository.first, "1y")
    assert not repository.publisher.signing.is_right()
    repository.publish("a")
    assert repository.publisher.signing.is_right()
    assert repository.publisher.signing.expires_at() is not None


def test_with_an_expired_key_nothing_is_published_and_nothing_changes(repository: Repository) -> None:
    repository.keyring.gpg("--passphrase", "", "--quick-set-expire", repository.first, "2d")
    repository.publish("a")
    before = {path.name: path.read_bytes() for path in repository.repodata.iterdir()}
    repository.clock.advance(3 * 86400)
    assert "expired on" in str(repository.publisher.signing.trouble())
    with pytest.raises(GpgError, match="expired on"):
        repository.publish("b")
    assert {path.name: path.read_bytes() for path in repository.repodata.iterdir()} == before
    assert repository.publisher.signing.is_right(), "what stands is signed as wanted"


def test_a_keyring_that_went_away_is_told_and_comes_back(repository: Repository) -> None:
    repository.publish("a")
    home, away = repository.keyring.home, repository.keyring.home.with_suffix(".away")
    home.rename(away)
    assert repository.publisher.signing.is_right(), "what stands is signed as wanted"
    assert "there is no keyring" in str(repository.publisher.signing.trouble())
    with pytest.raises(GpgError, match="there is no keyring"):
        repository.publish("b")
    away.rename(home)
    repository.publish("b")
    assert repository.publisher.signing.trouble() is None


def test_a_repomd_that_can_not_be_put_in_place_leaves_the_old_pair(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.publish("a")
    before = repository.signers(), (repository.repodata / "repomd.xml").read_bytes()
    rename = os.rename

    def fails(source: str, target: str) -> None:
        if target.endswith("repomd.xml"):
            raise OSError(5, "I/O error")
        rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", fails)
        with pytest.raises(OSError, match="I/O error"):
            repository.publish("b")
    assert (repository.signers(), (repository.repodata / "repomd.xml").read_bytes()) == before
    assert not repository.publisher.is_disturbed()


def test_a_first_signature_does_not_stay_beside_a_repomd_that_it_is_not_of(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.publisher = repository.opened()
    repository.publish("a")
    repository.publisher = repository.opened(repository.first)
    rename = os.rename

    def fails(source: str, target: str) -> None:
        if target.endswith("repomd.xml"):
            raise OSError(5, "I/O error")
        rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", fails)
        with pytest.raises(OSError, match="I/O error"):
            repository.publish("b")
    assert "repomd.xml.asc" not in repository.files()
    assert not repository.publisher.is_disturbed()


def test_a_signature_is_verified_by_the_keys_beside_it(repository: Repository) -> None:
    repository.publisher = repository.opened(repository.first, repository.second)
    repository.publish("a")
    names = ("repomd.xml", "repomd.xml.asc", "repomd.xml.key")
    content, signature, keys = ((repository.repodata / name).read_bytes() for name in names)
    other = (repository.repodata / f"{repository.second}.key").read_bytes()
    assert mismatch(content, signature=signature, keys=keys) is None
    assert mismatch(content + b"\n", signature=signature, keys=keys) == "it is not a signature of repomd.xml"
    assert mismatch(content, signature=b"nothing", keys=keys) is not None
    assert mismatch(content, signature=signature, keys=b"nothing") is not None
    repository.publisher = repository.opened(repository.first)
    repository.publish("b")
    signature = (repository.repodata / "repomd.xml.asc").read_bytes()
    assert mismatch((repository.repodata / "repomd.xml").read_bytes(), signature=signature, keys=other)
