"""Repositories that list signed packages alone, or the newest build; and what is told of the others."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.conftest import run
from tests.kit.daemon import Daemon, repowatch, wait_until
from tests.kit.keyrings import Keyring
from tests.kit.metadata import locations
from tests.kit.oracle import createrepo
from tests.kit.rpms import Tag, make_rpm
from tests.kit.signers import Signer

pytestmark = pytest.mark.client("rpmsign", "gpg", "gpgv")

HOW_RSA = "signed by {}, which packages.signed_by does not name"


@dataclass(frozen=True, slots=True)
class House:
    """A daemon with a repository of packages signed by one key, one of signed ones, and one of any."""

    scratch: Path
    signer: Signer
    daemon: Daemon
    keys: Path  # the file that the daemon has

    def package(self, name: str, key: str | None = None, **options: object) -> Path:
        path = make_rpm(self.scratch / "made", name, **options)  # type: ignore[arg-type]
        return self.signer.sign(path, key) if key else path

    def listed(self, repository: str = "by") -> set[str]:
        return set(locations(self.daemon, repository))


@pytest.fixture(scope="module")
def signer() -> Iterator[Signer]:
    with Keyring() as keyring:
        signer = Signer(keyring)
        signer.make_key("rsa")
        signer.make_key("ed", kind="ed25519")
        yield signer


@pytest.fixture
def house(tmp_path: Path, signer: Signer) -> Iterator[House]:
    keys = signer.export(tmp_path, "rsa")
    house = House(
        tmp_path, signer, Daemon(scratch=tmp_path, configuration=configuration(tmp_path, keys)), keys
    )
    for name in ("by", "signed", "any"):
        (tmp_path / name).mkdir()
    with house.daemon:
        yield house


def configuration(scratch: Path, keys: Path) -> str:
    common = "settle: 0.05s, deadline: 1s"
    return (
        "repositories:\n"
        f"  by: {{path: {scratch}/by, {common}, packages: {{signed_by: [{keys}]}}}}\n"
        f"  signed: {{path: {scratch}/signed, {common}, packages: signed}}\n"
        f"  any: {{path: {scratch}/any, {common}, replace: deny, same_nevra: newest_build}}\n"
    )


def test_a_package_is_let_in_by_who_signed_it(house: House) -> None:
    unsigned, rsa, ed = house.package("unsigned"), house.package("good", "rsa"), house.package("ed", "ed")
    put = house.daemon.put
    assert put("/by/good.rpm", rsa).status == 201
    refused = put("/by/unsigned.rpm", unsigned)
    assert (refused.status, refused.text) == (422, "not signed\n")
    refused = put("/by/ed.rpm", ed)
    assert (refused.status, refused.text) == (422, HOW_RSA.format(house.signer.key_id("ed")) + "\n")
    assert put("/signed/unsigned.rpm", unsigned).status == 422
    assert put("/signed/ed.rpm", ed).status == 201
    assert put("/any/unsigned.rpm", unsigned).status == 201
    assert house.listed() == {"good.rpm"}
    assert sorted(path.name for path in (house.scratch / "by").glob("*.rpm")) == ["good.rpm"]
    told = house.daemon.repository("by")["signatures"]
    assert told == {"packages": "signed_by", "keys": [house.signer.fingerprints["rsa"]], "trouble": None}


def test_a_package_that_came_by_file_is_listed_or_rejected_with_the_same_reason(house: House) -> None:
    shutil.copy(house.package("unsigned"), house.scratch / "by" / "unsigned.rpm")
    shutil.copy(house.package("ed", "ed"), house.scratch / "by" / "ed.rpm")
    shutil.copy(house.package("good", "rsa"), house.scratch / "by" / "good.rpm")
    wait_until(lambda: house.listed() == {"good.rpm"} and len(house.daemon.rejected("by")) == 2)
    other = HOW_RSA.format(house.signer.key_id("ed"))
    assert house.daemon.rejected("by") == {"unsigned.rpm": "not signed", "ed.rpm": other}


def test_a_package_as_el7_built_them_is_verified_as_a_whole(house: House) -> None:
    digests = [Tag.PAYLOADSHA256, Tag.PAYLOADSHA256ALGO, Tag.PAYLOADSHA256ALT]
    old = house.package("old", "rsa", omit=digests)
    assert house.daemon.put("/by/old.rpm", old).status == 201
    shutil.copy(old, house.scratch / "by" / "copy.rpm")
    wait_until(lambda: house.listed() == {"old.rpm", "copy.rpm"})


def test_other_keys_in_the_file_decide_anew_about_all_packages(house: House) -> None:
    for key in ("rsa", "ed"):
        shutil.copy(house.package(key, key), house.scratch / "by" / f"{key}.rpm")
    wait_until(lambda: house.listed() == {"rsa.rpm"})
    shutil.copy(house.signer.export(house.scratch, "rsa", "ed"), house.keys)
    assert house.daemon.put("/by/again.rpm", house.package("again", "rsa")).status == 201
    wait_until(lambda: house.listed() == {"rsa.rpm", "ed.rpm", "again.rpm"})
    shutil.copy(house.signer.export(house.scratch, "ed"), house.keys)
    (house.scratch / "by" / "again.rpm").unlink()
    wait_until(lambda: house.listed() == {"ed.rpm"})
    house.keys.write_text("no key")
    assert house.daemon.put("/by/more.rpm", house.package("more", "ed")).status == 201
    assert "has no OpenPGP key" in house.daemon.repository("by")["signatures"]["trouble"]


def test_a_restart_with_another_policy_lists_what_that_lets_in(house: House) -> None:
    for name, key in (("unsigned", None), ("ed", "ed"), ("good", "rsa")):
        shutil.copy(house.package(name, key), house.scratch / "any" / f"{name}.rpm")
    wait_until(lambda: house.listed("any") == {"unsigned.rpm", "ed.rpm", "good.rpm"})
    config = house.scratch / "repowatch.yaml"
    for policy, expected in (
        ("signed", {"ed.rpm", "good.rpm"}),
        (f"{{signed_by: [{house.keys}]}}", {"good.rpm"}),
        ("any", {"unsigned.rpm", "ed.rpm", "good.rpm"}),
    ):
        assert house.daemon.terminate() == 0
        config.write_text(f"repositories:\n  any: {{path: {house.scratch}/any, packages: {policy}}}\n")
        house.daemon.start()
        assert house.listed("any") == expected
        assert repowatch("verify", house.scratch / "any", "--config", config).returncode == 0


@pytest.mark.client("createrepo_c")
def test_what_another_tool_listed_is_verified_before_it_is_listed_here(
    tmp_path: Path, signer: Signer
) -> None:
    (tmp_path / "by").mkdir()
    make_rpm(tmp_path / "by", "unsigned")
    signer.sign(make_rpm(tmp_path / "by", "good"), "rsa")
    createrepo(tmp_path / "by")
    keys = signer.export(tmp_path, "rsa")
    text = f"repositories:\n  by: {{path: {tmp_path}/by, packages: {{signed_by: {keys}}}}}\n"
    with Daemon(scratch=tmp_path / "scratch", configuration=text) as daemon:
        wait_until(lambda: locations(daemon, "by") == {"good-1.0-1.noarch.rpm"})
        assert daemon.rejected("by") == {"unsigned-1.0-1.noarch.rpm": "not signed"}
        assert daemon.repository("by")["unchecked"] == 0


def test_who_uploads_what_old_clients_can_not_verify_is_told(house: House) -> None:
    answer = house.daemon.put("/signed/ed.rpm", house.package("ed", "ed"))
    hint = "EL8 can not verify its signature (EdDSA)"
    assert (answer.status, answer.text) == (201, f"ed.rpm: {hint}\n")
    assert house.daemon.repository("signed")["hints"] == [{"location": "ed.rpm", "hint": hint}]
    assert f"signed: ed.rpm: {hint}" in house.daemon.log
    assert hint in house.daemon.get("/-/signed").text
    assert house.daemon.terminate() == 0
    house.daemon.start()
    assert house.daemon.repository("signed")["hinted"] == 1


def test_an_older_build_is_stored_and_told_and_comes_back(house: House) -> None:
    old, new = (house.package("p", build_time=time, filename=f"{time}.rpm") for time in (100, 200))
    assert house.daemon.put("/any/new.rpm", new).text == ""
    answer = house.daemon.put("/any/old.rpm", old)
    reason = "p-1.0-1.noarch is listed from new.rpm: a newer build (same_nevra: newest_build)"
    assert (answer.status, answer.text) == (201, f"old.rpm is stored, and not listed: {reason}\n")
    assert house.daemon.rejected("any") == {"old.rpm": reason}
    [told] = house.daemon.repository("any")["duplicates"]
    assert told == {"nevra": "p-1.0-1.noarch", "locations": ["new.rpm", "old.rpm"], "listed": ["new.rpm"]}
    assert house.daemon.request("DELETE", "/any/new.rpm").status == 204
    assert house.listed("any") == {"old.rpm"}


def test_a_file_that_is_replaced_where_uploads_may_not_is_listed_and_told_loudly(house: House) -> None:
    first, other = house.package("a"), house.package("b")
    assert house.daemon.put("/any/a.rpm", first).status == 201
    assert house.daemon.put("/any/a.rpm", other).status == 409
    shutil.copy(other, house.scratch / "any" / "a.rpm")
    wait_until(lambda: house.daemon.repository("any")["replaced"])
    [told] = house.daemon.repository("any")["replaced"]
    assert (told["location"], told["nevra"]) == ("a.rpm", "b-1.0-1.noarch")
    assert "any: a.rpm was replaced by file, though `replace: deny`" in house.daemon.log
    assert 'repowatch_replaced_by_file_total{repository="any"} 1.0' in house.daemon.get("/metrics").text
    assert "replaced by file" in house.daemon.get("/-/any").text
    assert house.daemon.terminate() == 0
    house.daemon.start()
    [again] = house.daemon.repository("any")["replaced"]
    assert again["location"] == "a.rpm"


@pytest.mark.client("dnf", "rpm")
def test_dnf_installs_with_gpgcheck_what_such_a_repository_lists(house: House) -> None:
    assert house.daemon.put("/by/good.rpm", house.package("good", "rsa")).status == 201
    assert house.daemon.put("/any/unsigned.rpm", house.package("unsigned")).status == 201
    root = house.scratch / "installed"

    def install(repository: str, package: str) -> str:
        return run(
            *(
                "dnf",
                "-y",
                f"--installroot={root}",
                "--releasever=1",
                "--setopt=reposdir=/none",
            ),
            *(f"--repofrompath=r,{house.daemon.repository_url(repository)}", "--repo=r"),
            *("--setopt=r.gpgcheck=1", f"--setopt=r.gpgkey=file://{house.keys}", "install", package),
            check=False,
        )

    assert "Complete!" in install("by", "good")
    assert "is not signed" in install("any", "unsigned")
