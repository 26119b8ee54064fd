"""The keys that have to have signed packages: which there are, and what happens when their files change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from repowatch.errors import BadPackage, UsageError
from repowatch.model.digests import inspect
from repowatch.model.openpgp import dearmored
from repowatch.model.package import Stamp
from repowatch.model.signatures import Policy
from repowatch.repository.signed import Keys, check
from tests.kit.keyrings import Keyring
from tests.kit.rpms import make_rpm
from tests.kit.signers import Signer

pytestmark = pytest.mark.client("gpg", "gpgv")


@pytest.fixture(scope="module")
def signer() -> Iterator[Signer]:
    with Keyring() as keyring:
        signer = Signer(keyring)
        for name in ("one", "two"):
            signer.make_key(name, kind="ed25519")
        yield signer


def test_any_and_signed_need_no_keys() -> None:
    assert not Keys("any").policy.signed
    assert Keys("signed").policy.signed
    assert Keys("signed").policy.keyring is None
    assert not Keys("signed").look()


def test_keys_are_read_from_several_files_armored_or_not(signer: Signer, tmp_path: Path) -> None:
    one, two = signer.export(tmp_path, "one"), tmp_path / "two.gpg"
    two.write_bytes(signer.keyring.gpg("--export", signer.fingerprints["two"]))
    both = Keys([str(one), str(two)])
    assert both.fingerprints == (signer.fingerprints["one"], signer.fingerprints["two"])
    assert Keys([str(signer.export(tmp_path, "one", "two"))]).fingerprints == both.fingerprints


def test_other_keys_in_a_file_are_another_policy_and_another_date_is_not(
    signer: Signer, tmp_path: Path
) -> None:
    path = tmp_path / "key"
    path.write_bytes(signer.export(tmp_path, "one").read_bytes())
    keys = Keys([str(path)])
    before = keys.policy
    assert not keys.are_old()
    path.write_bytes(path.read_bytes())
    assert keys.are_old()
    assert not keys.look()
    path.write_bytes(signer.export(tmp_path, "two").read_bytes())
    assert keys.look()
    assert keys.policy != before
    assert not keys.look()


@pytest.mark.parametrize(
    "damage", ["gone", "no key", "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n-----END PGP"]
)
def test_a_file_that_can_not_be_read_any_more_leaves_the_keys_and_is_told_once(
    signer: Signer, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = signer.export(tmp_path, "one")
    content, keys = path.read_bytes(), Keys([str(path)])
    before = keys.policy
    path.unlink()
    if damage != "gone":
        path.write_text(damage)
    assert not keys.look()
    assert not keys.look()
    assert keys.policy is before
    assert keys.trouble
    assert str(path) in keys.trouble
    assert len(caplog.records) == 1
    path.write_bytes(content)
    assert not keys.look()
    assert keys.trouble is None


def test_at_the_start_a_file_without_a_key_is_an_error(signer: Signer, tmp_path: Path) -> None:
    path = tmp_path / "key"
    with pytest.raises(UsageError, match="can not be read"):
        Keys([str(path)])
    path.write_text("no key")
    with pytest.raises(UsageError, match="has no OpenPGP key"):
        Keys([str(path)])
    secret = ("--pinentry-mode", "loopback", "--passphrase", "", "--armor", "--export-secret-keys")
    path.write_bytes(signer.keyring.gpg(*secret, signer.fingerprints["one"]))
    with pytest.raises(UsageError, match="private key block; export the public key alone"):
        Keys([str(path)])


def test_without_gpgv_the_start_says_what_to_install(
    signer: Signer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = signer.export(tmp_path, "one")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Keys("signed").policy.signed
    with pytest.raises(UsageError, match="needs gpgv; install it"):
        Keys([str(path)])


# RFC 9580, appendix A.3.
VERSION_6 = b"""\
-----BEGIN PGP PUBLIC KEY BLOCK-----

xioGY4d/4xsAAAAg+U2nu0jWCmHlZ3BqZYfQMxmZu52JGggkLq2EVD34laPCsQYf
GwoAAABCBYJjh3/jAwsJBwUVCg4IDAIWAAKbAwIeCSIhBssYbE8GCaaX5NUt+mxy
KwwfHifBilZwj2Ul7Ce62azJBScJAgcCAAAAAK0oIBA+LX0ifsDm185Ecds2v8lw
gyU2kCcUmKfvBXbAf6rhRYWzuQOwEn7E/aLwIwRaLsdry0+VcallHhSu4RN6HWaE
QsiPlR4zxP/TP7mhfVEe7XWPxtnMUMtf15OyA51YBM4qBmOHf+MZAAAAIIaTJINn
+eUBXbki+PSAld2nhJh/LVmFsS+60WyvXkQ1wpsGGBsKAAAALAWCY4d/4wKbDCIh
BssYbE8GCaaX5NUt+mxyKwwfHifBilZwj2Ul7Ce62azJAAAAAAQBIKbpGG2dWTX8
j+VjFM21J0hqWlEg+bdiojWnKfA5AQpWUBtnNwDEM0g12vYxoWM8Y81W+bHBw805
I8kWVkXU6vFOi+HWvv/ira7ofJu16NnoUkhclkUrk0mXubZvyl4GBg==
-----END PGP PUBLIC KEY BLOCK-----
"""


@pytest.mark.client("rpmsign")
def test_a_key_that_gpgv_can_not_read_does_not_hide_the_others(signer: Signer, tmp_path: Path) -> None:
    (tmp_path / "six").write_bytes(VERSION_6)
    (tmp_path / "both").write_bytes(VERSION_6 + signer.export(tmp_path, "one").read_bytes())
    with pytest.raises(UsageError, match="only keys of versions that gpgv can not read"):
        Keys([str(tmp_path / "six")])
    keys = Keys([str(tmp_path / "both")])
    assert keys.policy.keyring
    package = signer.sign(make_rpm(tmp_path, "hello"), "one")
    with open(package, "rb", buffering=0) as stream:
        head = inspect(stream, size=package.stat().st_size).head
    stamp = Stamp.of(package.stat())
    with pytest.raises(BadPackage, match="signed_by does not name"):  # the guilty one
        check(
            head,
            path=str(package),
            stamp=stamp,
            policy=Policy(signed=True, keyring=dearmored(VERSION_6) + keys.policy.keyring),
        )
    assert "EdDSA" in check(head, path=str(package), stamp=stamp, policy=keys.policy)
