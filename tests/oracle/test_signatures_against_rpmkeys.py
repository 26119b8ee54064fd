"""The verdict on signatures is that of rpm with the same keys, but for the exceptions listed here."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from repowatch.errors import BadPackage
from repowatch.model.digests import inspect
from repowatch.model.package import Stamp
from repowatch.model.signatures import Policy
from repowatch.repository.signed import Keys, check
from tests.kit.keyrings import Keyring
from tests.kit.rpms import Field, Kind, Tag, flip_byte, layout, make_rpm
from tests.kit.signers import IN_2020, IN_2021, IN_2022, Signer

pytestmark = pytest.mark.client("rpm", "rpmsign", "gpg", "gpgv")

PAYLOAD_DIGESTS = [Tag.PAYLOADSHA256, Tag.PAYLOADSHA256ALGO, Tag.PAYLOADSHA256ALT]

# rpm before 4.19 has OpenPGP code of its own, that looks at no dates and no revocations and takes any hash;
# since then it is Sequoia's, which does. What is listed is to be of use to both.
OF_SEQUOIA = "rpm's own OpenPGP code, before 4.19, does not look at this"
DISAGREEMENTS = {
    "after its key had expired": OF_SEQUOIA,
    "before its key was made": OF_SEQUOIA,
    "by a revoked key": OF_SEQUOIA,
    "with MD5": OF_SEQUOIA,
}

REASONS = {
    "unsigned": "not signed",
    "by another key": "which packages.signed_by does not name",
    "after its key had expired": "on 2022-06-01, after that key had expired (2022-01-01)",
    "before its key was made": "on 2020-06-01, before that key was made",
    "by a revoked key": "a key that is revoked",
    "with MD5": "with MD5, which is too weak",
    "bound by an MD5 beside it": "covers the header alone, and no digest in there the payload",
    "with another header under it": "does not match: it is corrupt or forged",
    "without a payload digest, its payload changed": "does not match: it is corrupt or forged",
}


@dataclass(frozen=True, slots=True)
class Case:
    path: Path
    rpm: bool  # whether rpm takes it
    reason: str  # why we do not; "" where we do


def packages(directory: Path, signer: Signer) -> Iterator[tuple[str, Path]]:
    def made(name: str, **options: object) -> Path:
        return make_rpm(directory, name, **options)  # type: ignore[arg-type]

    yield "unsigned", made("unsigned")
    yield "RSA", signer.sign(made("rsa"), "rsa")
    yield "Ed25519", signer.sign(made("ed"), "ed")
    yield "RSA over the payload as well", signer.sign(made("both"), "rsa", legacy=True)
    yield "by another key", signer.sign(made("other"), "other")
    yield "before its key expired", signer.sign(made("intime"), "short", at=IN_2021)
    yield "after its key had expired", signer.sign(made("late"), "short", at=IN_2022)
    yield "before its key was made", signer.sign(made("early"), "young", at=IN_2020)
    yield "by a revoked key", signer.sign(made("revoked"), "revoked")
    yield "with SHA-1", signer.sign(made("sha1"), "rsa", extra="--digest-algo SHA1")
    yield "with MD5", signer.sign(made("md5"), "rsa", extra="--digest-algo MD5")
    yield "without a payload digest", signer.sign(made("old", omit=PAYLOAD_DIGESTS), "rsa")
    yield "bound by an MD5 beside it", bound_by_md5(made("weak", omit=PAYLOAD_DIGESTS), signer)
    yield "with another header under it", forged(made("forged"), signer)
    yield (
        "without a payload digest, its payload changed",
        repacked(made("repacked", omit=PAYLOAD_DIGESTS), signer),
    )


def header_signature(path: Path) -> dict[int, Field]:
    """The signature of the header alone that a package carries, for another one."""
    content, parts = path.read_bytes(), layout(path)
    tag = content.index((268).to_bytes(4, "big"), parts.signature)
    at, count = struct.unpack_from(">II", content, tag + 8)
    (entries,) = struct.unpack_from(">I", content, parts.signature + 8)
    data = parts.signature + 16 + 16 * entries + at
    return {268: Field(Kind.BIN, content[data : data + count])}


def forged(path: Path, signer: Signer) -> Path:
    """A package with the signature of another one."""
    stolen = header_signature(signer.sign(path, "rsa"))
    return make_rpm(path.parent, "forged", summary="Something else", signature_tags=stolen)


def bound_by_md5(path: Path, signer: Signer) -> Path:
    """A package whose header is signed, while only an MD5 beside it binds the payload."""
    stolen = header_signature(signer.sign(path, "rsa"))
    return make_rpm(path.parent, "weak", omit=PAYLOAD_DIGESTS, signature_tags=stolen)


def repacked(path: Path, signer: Signer) -> Path:
    """Another payload under a signed header, with a digest that nobody signed to match."""
    signer.sign(path, "rsa")
    content, parts = path.read_bytes(), layout(path)
    flip_byte(path, offset=parts.end - 1)
    changed = path.read_bytes()
    old, new = (hashlib.md5(each[parts.header :]).digest() for each in (content, changed))
    path.write_bytes(changed.replace(old, new))
    return path


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Case]]:
    directory = tmp_path_factory.mktemp("signatures")
    with Keyring() as keyring:
        signer = Signer(keyring)
        signer.make_key("rsa")
        signer.make_key("ed", kind="ed25519")
        signer.make_key("other")
        signer.make_key("short")
        signer.make_key("young", at="20210101T000000")
        signer.make_key("revoked")
        made = dict(packages(directory, signer))
        signer.revoke("revoked")
        signer.expire("short", at="20220101T000000")
        key_files = [signer.export(directory, name) for name in ("rsa", "ed", "short", "young", "revoked")]
    database = directory / "rpmdb"
    for each in key_files:
        subprocess.run(["rpmkeys", "--dbpath", database, "--import", each], check=True, capture_output=True)
    policy = Keys(list(map(str, key_files))).policy
    yield {name: Case(path, rpm_takes(path, database), reason(path, policy)) for name, path in made.items()}


def rpm_takes(path: Path, database: Path) -> bool:
    command: list[str | Path] = ["rpmkeys", "--dbpath", database, "--checksig", path]
    command += ["--define", "_pkgverify_level all"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def reason(path: Path, policy: Policy) -> str:
    stamp = Stamp.of(os.stat(path))
    with open(path, "rb", buffering=0) as stream:
        inspection = inspect(stream, size=stamp.size)
    try:
        check(inspection.head, path=str(path), stamp=stamp, policy=policy)
    except BadPackage as error:
        return str(error)
    return ""


def rpm_is_sequoia() -> bool:
    shown = subprocess.run(["rpm", "--version"], capture_output=True, text=True, check=True).stdout
    major, minor = shown.split()[-1].split(".")[:2]
    return (int(major), int(minor)) >= (4, 19)


def test_the_verdict_is_that_of_rpm_or_differs_for_a_known_reason(cases: dict[str, Case]) -> None:
    differ = {name for name, each in cases.items() if each.rpm == bool(each.reason)}
    assert differ == (set() if rpm_is_sequoia() else set(DISAGREEMENTS))


def test_each_refusal_says_why(cases: dict[str, Case]) -> None:
    refused = {name: each.reason for name, each in cases.items() if each.reason}
    assert refused.keys() == REASONS.keys()
    assert all(REASONS[name] in text for name, text in refused.items()), refused


def test_a_check_of_the_header_alone_would_be_caught(cases: dict[str, Case]) -> None:
    assert cases["without a payload digest"].rpm
    assert not cases["without a payload digest, its payload changed"].rpm
