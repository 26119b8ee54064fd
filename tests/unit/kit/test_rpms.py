"""What make_rpm writes is a package to rpm itself, and does what its arguments say."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.kit.rpms import (
    COMPRESSORS,
    Field,
    Kind,
    Sig,
    append,
    edit_header,
    flip_byte,
    layout,
    make_rpm,
    truncate,
)

pytestmark = pytest.mark.client("rpm")

README = "/usr/share/doc/hello/README"


def rpm(*arguments: str | Path) -> str:
    done = subprocess.run(["rpm", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def query(path: Path, format: str) -> str:
    return rpm("-qp", "--nosignature", "--queryformat", format, path)


@pytest.mark.parametrize("format", [3, 4, 6])
def test_rpm_reads_its_nevra(tmp_path: Path, format: int) -> None:
    path = make_rpm(tmp_path, "foo", "1.2", "3", epoch=4, arch="x86_64", format=format)
    assert path.name == "foo-1.2-3.x86_64.rpm"
    assert query(path, "%{nevra}") == "foo-4:1.2-3.x86_64"


def test_rpm_reads_its_texts_and_changelog(tmp_path: Path) -> None:
    entry = (1_700_000_000, "Anna <anna@example.org> - 1.0-1", "- first")
    path = make_rpm(
        tmp_path, summary="Grüße", description=b"caf\xc3\xa9", license="GPL-2.0-only", changelog=[entry]
    )
    texts = "%{summary}|%{description}|%{license}|%{changelogtime}|%{changelogname}|%{changelogtext}"
    assert query(path, texts) == f"Grüße|café|GPL-2.0-only|{'|'.join(map(str, entry))}"


@pytest.mark.parametrize("format", [3, 4, 6])
def test_rpm_reads_its_files(tmp_path: Path, format: int) -> None:
    files = {"/opt/x/": b"", "/opt/x/b": b"bb", "/etc/a": b"a"}
    path = make_rpm(tmp_path, files=files, format=format)
    listed = query(path, "[%{filenames} %{longfilesizes} %{fileusername} %{filemodes:perms}\n]")
    assert listed.splitlines() == [
        "/etc/a 1 root -rw-r--r--",
        "/opt/x 0 root drwxr-xr-x",
        "/opt/x/b 2 root -rw-r--r--",
    ]


def test_rpm_reads_its_dependencies(tmp_path: Path) -> None:
    path = make_rpm(
        tmp_path,
        epoch=1,
        requires=["bash", "libfoo >= 2:1.0-3", "(a or b)"],
        provides=["webserver = 1"],
        conflicts=["old < 3"],
        obsoletes=["older <= 2"],
    )
    requires = [line for line in rpm("-qpR", path).splitlines() if not line.startswith("rpmlib(")]
    assert requires == ["(a or b)", "bash", "libfoo >= 2:1.0-3"]
    assert rpm("-qp", "--provides", path).splitlines() == ["hello = 1:1.0-1", "webserver = 1"]
    assert rpm("-qp", "--conflicts", path) == "old < 3\n"
    assert rpm("-qp", "--obsoletes", path) == "older <= 2\n"


def test_rpm_takes_a_source_package_for_one(tmp_path: Path) -> None:
    path = make_rpm(tmp_path, source=True, requires=["gcc"])
    assert path.name == "hello-1.0-1.src.rpm"
    assert query(path, "%{sourcepackage} %{sourcerpm} [%{filenames}]") == "1 (none) hello.spec"


def test_a_package_can_be_without_files(tmp_path: Path) -> None:
    assert rpm("-qpl", make_rpm(tmp_path, files={})) == "(contains no files)\n"


def test_tags_can_be_added_and_replaced(tmp_path: Path) -> None:
    tags = {1020: Field(Kind.STRING, ["http://x/"]), 1007: Field(Kind.STRING, ["elsewhere"])}
    assert query(make_rpm(tmp_path, header_tags=tags), "%{url} %{buildhost}") == "http://x/ elsewhere"


@pytest.mark.parametrize("format", [3, 4, 6])
@pytest.mark.parametrize("payload", COMPRESSORS)
def test_rpm_installs_it(tmp_path: Path, format: int, payload: str) -> None:
    path = make_rpm(tmp_path / "packages", format=format, payload=payload, files={README: b"hello\n"})
    root = tmp_path / "root"
    rpm("-i", "--root", root, "--nodeps", "--nosignature", path)
    assert (root / README[1:]).read_bytes() == b"hello\n"
    assert rpm("-V", "--root", root, "--nodeps", "hello") == ""


def test_equal_arguments_make_equal_bytes(tmp_path: Path) -> None:
    first, second = make_rpm(tmp_path / "1"), make_rpm(tmp_path / "2")
    assert first.read_bytes() == second.read_bytes()


def test_the_parts_lie_where_layout_says(tmp_path: Path) -> None:
    path = make_rpm(tmp_path, "x" * 7)
    content, parts = path.read_bytes(), layout(path)
    assert parts.end == len(content)
    assert content[parts.signature :][:4] == content[parts.header :][:4] == b"\x8e\xad\xe8\x01"
    assert content[parts.payload :][:2] == b"\x1f\x8b"


def test_damage_does_what_it_says(tmp_path: Path) -> None:
    path = make_rpm(tmp_path)
    whole = path.read_bytes()
    append(path, data=b"!")
    assert path.read_bytes() == whole + b"!"
    truncate(path, size=10)
    assert path.read_bytes() == whole[:10]
    flip_byte(path, offset=4, mask=1)
    assert path.read_bytes() == whole[:4] + b"\x02" + whole[5:10]


def test_an_edited_header_has_matching_digests(tmp_path: Path) -> None:
    path = make_rpm(tmp_path, summary="before")

    def rename(header: bytearray) -> None:
        header[:] = header.replace(b"before", b"behind")

    edit_header(path, rename)
    assert query(path, "%{summary}") == "behind"
    subprocess.run(["rpmkeys", "--checksig", "--nosignature", path], check=True, capture_output=True)


def test_a_falsified_digest_is_the_only_thing_wrong(tmp_path: Path) -> None:
    path = make_rpm(tmp_path, falsify=[Sig.SHA1])
    command = ["rpmkeys", "--checksig", "--verbose", "--nosignature", str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    verdicts = [line.split(":")[1].split()[0] for line in done.stdout.splitlines()[1:]]
    assert sorted(verdicts) == ["BAD", "OK", "OK", "OK"]
