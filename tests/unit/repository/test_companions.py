"""Groups, modules and advisories in a tree: what is published of them, and what is remembered."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from repowatch.errors import BadMetadata
from repowatch.model import companion
from repowatch.model.formats import FORMATS, opened
from repowatch.model.recipe import Recipe
from repowatch.model.repomd import Record, parse
from repowatch.repository import companions as module
from repowatch.repository import publisher as publishing
from repowatch.repository.changes import PublicationFailed
from repowatch.repository.index import Index
from repowatch.repository.readers import Readers
from tests.kit.clock import FakeClock
from tests.kit.loopfs import fill, memory_disk, require_mounts
from tests.kit.oracle import createrepo
from tests.kit.rpms import make_rpm

GROUP = "<comps><group><id>{0}</id><name>{0}</name></group></comps>"
ADVISORY = "id: {0}\ntype: bugfix\ntitle: t\nissued: 2026-11-28\npackages: [a-1.0-1.noarch, b-1-1.noarch]\n"
UPDATE = '<updates><update type="bugfix"><id>{0}</id></update></updates>'
MODULE = """\
document: modulemd
version: 2
data:
  {{name: {0}, stream: x, version: 1, context: c, arch: noarch,
   summary: s, description: d, license: {{module: [MIT]}}}}
"""


class Repository:
    """A tree with a package in it, and its index."""

    def __init__(self, root: Path, readers: Readers, pool: ThreadPoolExecutor) -> None:
        self.root = root
        self.clock = FakeClock()
        self._parts = {"readers": readers, "pool": pool}
        self.index = self.opened()

    def opened(self, **options: object) -> Index:
        index = Index(str(self.root), name="test", clock=self.clock, **self._parts, **options)  # type: ignore[arg-type]
        index.open()
        return index

    def restart(self, **options: object) -> None:
        self.index.close()
        self.index = self.opened(**options)

    def write(self, name: str, text: str) -> None:
        """Put a file into its place."""
        aside = self.root / ".aside"
        aside.write_text(text)
        (self.root / name).parent.mkdir(exist_ok=True)
        aside.rename(self.root / name)

    def look(self, *names: str) -> None:
        self.clock.advance(1)
        self.index.turn([], at_once=names or [""])

    @property
    def records(self) -> dict[str, Record]:
        """The records that are published, each with its file."""
        found = parse((self.root / "repodata/repomd.xml").read_bytes()).records
        for record in found:
            content = (self.root / record.location_href).read_bytes()
            assert hashlib.new(record.checksum_type, content).hexdigest() == record.checksum
        return {record.type: record for record in found}

    def says(self, kind: str) -> bytes:
        """What is published, opened."""
        location_href = self.records[kind].location_href
        content = (self.root / location_href).read_bytes()
        return opened(location_href, content) if location_href.endswith(("gz", "zst")) else content

    @property
    def rejected(self) -> dict[str, str]:
        return {name: each.reason for name, each in self.index.rejected.items()}

    @property
    def states(self) -> dict[str, str]:
        assert self.index.publication is not None
        return {
            each.location: each.state for each in self.index.companions.tell(self.index.publication.entries)
        }


@pytest.fixture
def repository(tmp_path: Path, readers: Readers, pool: ThreadPoolExecutor) -> Iterator[Repository]:
    make_rpm(tmp_path / "root", "a")
    repository = Repository(tmp_path / "root", readers, pool)
    yield repository
    repository.index.close()


# -- what is published


def test_each_kind_is_published_and_goes_with_its_file(repository: Repository) -> None:
    repository.write("comps.xml", GROUP.format("g"))
    repository.write("modules.yaml", MODULE.format("m"))
    repository.write("updateinfo.xml", UPDATE.format("A-1"))
    repository.write("advisories/1.yaml", ADVISORY.format("A-2"))
    repository.look()
    assert repository.says("group") == repository.says("group_gz") == GROUP.format("g").encode()
    assert repository.says("modules") == MODULE.format("m").encode()
    assert b"<id>A-1</id>" in repository.says("updateinfo")
    assert b"<id>A-2</id>" in repository.says("updateinfo")
    shutil.rmtree(repository.root / "advisories")
    repository.look("advisories")
    assert repository.says("updateinfo") == UPDATE.format("A-1").encode()
    for name, kind in (("comps.xml", "group"), ("modules.yaml", "modules"), ("updateinfo.xml", "updateinfo")):
        (repository.root / name).unlink()
        repository.look(name)
        assert kind not in repository.records
    assert set(repository.records) == {"primary", "filelists", "other"}


def test_the_same_files_make_the_same_bytes_whatever_came_first(
    repository: Repository, tmp_path: Path, readers: Readers, pool: ThreadPoolExecutor
) -> None:
    for name in ("2", "1", "3"):
        repository.write(f"advisories/{name}.yaml", ADVISORY.format(name))
        repository.look("advisories")
    (repository.root / "advisories/3.yaml").unlink()
    repository.look("advisories/3.yaml")
    (tmp_path / "other").mkdir()
    other = Repository(tmp_path / "other", readers, pool)
    for name in ("1", "2"):
        other.write(f"advisories/{name}.yaml", ADVISORY.format(name))
    other.look()
    other.index.close()
    assert other.records["updateinfo"].location_href == repository.records["updateinfo"].location_href


def test_the_recipe_decides_on_format_and_checksum_but_groups_are_always_gzip(repository: Repository) -> None:
    repository.write("comps.xml", GROUP.format("g"))
    repository.write("modules.yaml", MODULE.format("m"))
    repository.look()
    repository.restart(recipe=Recipe(form=FORMATS["modern"], checksum="sha512"))
    repository.look()
    records = repository.records
    assert records["modules"].location_href.endswith("-modules.yaml.zst")
    assert records["group_gz"].location_href.endswith("-comps.xml.gz")
    assert {each.checksum_type for each in records.values()} == {"sha512"}
    assert records["modules"].open_checksum == hashlib.sha512(MODULE.format("m").encode()).hexdigest()


def test_what_is_configured_travels_along_as_it_is(repository: Repository) -> None:
    repository.restart(metadata={"productid": "meta/id", "appstream": "app.xml.gz"})
    (repository.root / "app.xml.gz").write_bytes(gzip.compress(b"<components/>"))
    repository.write("meta/id", "a certificate")
    repository.look()
    assert repository.says("productid") == b"a certificate"
    assert repository.says("appstream") == b"<components/>"
    assert repository.records["appstream"].location_href.endswith("-appstream.xml.gz")
    assert repository.records["appstream"].open_size == len(b"<components/>")
    (repository.root / "app.xml.gz").write_bytes(gzip.compress(b"<components/>")[:-9])
    repository.look("app.xml.gz")
    assert repository.rejected["app.xml.gz"].startswith("app.xml.gz is damaged: ")
    repository.restart()
    repository.look()
    assert not {"productid", "appstream"} & repository.records.keys()


def test_nothing_is_made_anew_where_nothing_changed(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.write("comps.xml", GROUP.format("g"))
    repository.write("advisories/1.yaml", ADVISORY.format("A-1"))
    repository.look()
    before = repository.records

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a companion was read")

    monkeypatch.setattr(module, "make", never)
    monkeypatch.setattr(companion.Names, "read", never)
    repository.look()
    repository.restart()
    repository.look()
    assert repository.records == before
    make_rpm(repository.root, "b")
    repository.look("b-1.0-1.noarch.rpm")
    after = repository.records
    assert {kind: after[kind] for kind in ("group", "group_gz", "updateinfo")} == {
        kind: before[kind] for kind in ("group", "group_gz", "updateinfo")
    }


def test_a_file_that_changed_lately_waits(repository: Repository) -> None:
    repository.restart(settle=3600.0)
    repository.write("comps.xml", GROUP.format("g"))
    repository.clock.jump((repository.root / "comps.xml").stat().st_ctime + 1 - repository.clock.now())
    again = repository.index.turn([""])
    assert "comps.xml" in again.unsettled
    assert "group" not in repository.records


def test_excluded_names_are_plain_files(repository: Repository) -> None:
    repository.restart(exclude=["comps.xml", "advisories/*"])
    repository.write("comps.xml", GROUP.format("g"))
    repository.write("advisories/1.yaml", ADVISORY.format("A-1"))
    repository.look()
    assert set(repository.records) == {"primary", "filelists", "other"}
    assert repository.rejected == {}


# -- what can not be used


@pytest.mark.parametrize(
    ("name", "good", "kind"),
    [
        ("comps.xml", GROUP, "group"),
        ("modules.yaml", MODULE, "modules"),
        ("updateinfo.xml", UPDATE, "updateinfo"),
        ("advisories/1.yaml", ADVISORY, "updateinfo"),
    ],
)
def test_a_broken_file_is_told_and_what_was_good_stays_over_restarts(
    repository: Repository, name: str, good: str, kind: str
) -> None:
    repository.write("advisories/0.yaml", ADVISORY.format("A-0"))
    repository.write(name, good.format("old"))
    repository.look()
    repository.write(name, "<&")
    repository.look(name)
    assert repository.rejected[name].startswith("line 1: ")
    assert repository.states[name] == "kept"
    repository.restart()
    repository.write("advisories/0.yaml", ADVISORY.format("B-0"))
    repository.look()
    assert b"old" in repository.says(kind)
    assert b"B-0" in repository.says("updateinfo")
    assert repository.rejected[name].startswith("line 1: ")
    repository.write(name, good.format("new"))
    repository.look(name)
    assert b"new" in repository.says(kind)
    assert repository.rejected == {}


def test_a_file_that_never_was_good_is_told_and_nothing_else(repository: Repository) -> None:
    repository.write("comps.xml", "")
    (repository.root / "modules.yaml").mkdir()
    (repository.root / "updateinfo.xml").symlink_to("/etc/hostname")
    repository.look()
    assert repository.rejected["comps.xml"] == "empty file"
    assert repository.rejected["modules.yaml"] == "a directory"
    assert repository.rejected["updateinfo.xml"].startswith("a symbolic link out of the tree")
    assert set(repository.records) == {"primary", "filelists", "other"}
    assert set(repository.states.values()) == {"rejected"}


def test_a_link_within_the_tree_is_followed(repository: Repository) -> None:
    repository.write("groups.xml", GROUP.format("g"))
    (repository.root / "comps.xml").symlink_to("groups.xml")
    repository.look()
    assert repository.says("group") == GROUP.format("g").encode()


def test_a_file_that_is_too_large_is_not_read(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(companion, "MOST_ADVISORY", 10)
    repository.write("advisories/1.yaml", ADVISORY.format("A-1"))
    repository.look()
    assert "10 are the most that is read" in repository.rejected["advisories/1.yaml"]


def test_of_two_advisories_with_one_id_the_first_by_name_counts(repository: Repository) -> None:
    for name in ("1", "2"):
        repository.write(f"advisories/{name}.yaml", ADVISORY.format("A-1"))
    repository.look()
    assert repository.rejected == {"advisories/2.yaml": "the id A-1 is in advisories/1.yaml already"}
    assert repository.says("updateinfo").count(b"<id>A-1</id>") == 1
    repository.write("updateinfo.xml", UPDATE.format("A-1"))
    repository.look("updateinfo.xml")
    assert repository.says("updateinfo") == UPDATE.format("A-1").encode()
    assert set(repository.rejected) == {"advisories/1.yaml", "advisories/2.yaml"}
    with pytest.raises(BadMetadata, match="the id A-1 is in "):
        (repository.root / "new").write_text(ADVISORY.format("A-1"))
        repository.index.companions.examine("advisories/3.yaml", str(repository.root / "new"))


def test_packages_that_are_not_listed_are_told_with_the_advisory_that_names_them(
    repository: Repository,
) -> None:
    repository.write("advisories/1.yaml", ADVISORY.format("A-1"))
    repository.look()
    assert repository.index.publication is not None
    [told] = repository.index.companions.tell(repository.index.publication.entries)
    assert (told.state, told.unlisted) == ("published", ("b-1-1.noarch",))


# -- what another tool published


def test_records_of_another_tool_stay_until_a_file_takes_their_place(
    repository: Repository, tmp_path: Path
) -> None:
    repository.index.close()
    shutil.rmtree(repository.root / ".repowatch")
    (tmp_path / "groups.xml").write_text(GROUP.format("theirs"))
    createrepo(repository.root, f"--groupfile={tmp_path}/groups.xml")
    repository.index = repository.opened()
    repository.look()
    assert b"theirs" in repository.says("group")
    repository.write("comps.xml", "<&")
    repository.look("comps.xml")
    assert b"theirs" in repository.says("group")
    repository.write("comps.xml", GROUP.format("ours"))
    repository.look("comps.xml")
    assert b"ours" in repository.says("group")
    (repository.root / "comps.xml").unlink()
    repository.look("comps.xml")
    assert not {"group", "group_gz"} & repository.records.keys()


def test_another_tool_that_publishes_meanwhile_does_not_take_them_away(repository: Repository) -> None:
    repository.write("comps.xml", GROUP.format("g"))
    repository.look()
    shutil.rmtree(repository.root / "repodata")
    createrepo(repository.root)
    repository.index.turn(["repodata"])
    repository.look()
    assert repository.says("group_gz") == GROUP.format("g").encode()


def test_superseded_files_are_swept_and_current_ones_are_not(repository: Repository) -> None:
    repository.restart(metadata={"productid": "id"})
    for text in ("one", "two"):
        repository.write("comps.xml", GROUP.format(text))
        repository.write("id", text)
        repository.look()
    repository.restart()  # and nothing says any more what `productid` was
    repository.look()
    repository.clock.advance(4000)
    repository.index.sweep()
    left = {path.name for path in (repository.root / "repodata").iterdir()} - {"repomd.xml"}
    assert left == {os.path.basename(each.location_href) for each in repository.records.values()}


# -- what goes wrong with the disk


def test_the_loss_of_all_that_is_remembered_costs_nothing_while_files_are_good(
    repository: Repository,
) -> None:
    repository.write("comps.xml", GROUP.format("g"))
    repository.look()
    before = repository.records
    for damage in (shutil.rmtree, lambda path: (path / "state").write_text("{"), _remove_copies):
        damage(repository.root / ".repowatch/companions")
        repository.restart()
        repository.look()
        assert repository.records == before
        repository.write("comps.xml", GROUP.format("h"))
        repository.look("comps.xml")
        repository.write("comps.xml", GROUP.format("g"))
        repository.look("comps.xml")
        before = repository.records


def _remove_copies(directory: Path) -> None:
    for path in directory.iterdir():
        if path.name != "state":
            path.unlink()


def test_a_copy_that_goes_while_it_is_needed_is_made_again(repository: Repository) -> None:
    repository.write("advisories/1.yaml", ADVISORY.format("A-1"))
    repository.look()
    _remove_copies(repository.root / ".repowatch/companions")
    repository.write("advisories/2.yaml", ADVISORY.format("A-2"))
    with pytest.raises(PublicationFailed):
        repository.look("advisories/2.yaml")
    repository.look()
    assert {b"A-1", b"A-2"} <= {
        each.partition(b"<")[0] for each in repository.says("updateinfo").split(b"<id>")
    }


def test_a_full_disk_leaves_all_as_it_was(tmp_path: Path, readers: Readers, pool: ThreadPoolExecutor) -> None:
    require_mounts()
    with memory_disk(tmp_path / "root", kilobytes=1024):
        repository = Repository(tmp_path / "root", readers, pool)
        with contextlib.closing(repository.index):
            repository.write("comps.xml", GROUP.format("g"))
            repository.look()
            before = repository.records
            repository.write("large.xml", GROUP.format("x" * 100_000))
            filler = fill(repository.root)
            (repository.root / "large.xml").rename(repository.root / "comps.xml")
            with pytest.raises(PublicationFailed, match="No space left"):
                repository.look("comps.xml")
            assert repository.records == before
            filler.unlink()
            repository.look()
            assert len(repository.says("group")) > 200_000


class Died(BaseException):
    """The process ends here."""


def die_at(number: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Let the process end at the n-th step that the disk sees; gives how many there were."""
    steps = 0

    def counted(act: Callable[..., object]) -> Callable[..., object]:
        def do(*arguments: object, **options: object) -> object:
            nonlocal steps
            steps += 1
            if steps == number:
                raise Died
            return act(*arguments, **options)

        return do

    for name in ("rename", "unlink"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    for where in (module, publishing):
        for name in ("write_durably", "fsync_directory"):
            monkeypatch.setattr(where, name, counted(getattr(where, name)))
    return lambda: steps


CHANGES: dict[str, Callable[[Repository], None]] = {
    "a new file": lambda repository: repository.write("modules.yaml", MODULE.format("new")),
    "a broken file": lambda repository: repository.write("comps.xml", "<&"),
    "another content": lambda repository: repository.write("comps.xml", GROUP.format("new")),
    "a file that goes": lambda repository: (repository.root / "comps.xml").unlink(),
}


def deaths(
    repository: Repository, change: Callable[[Repository], None], *, forgetting: bool = False
) -> list[str]:
    """What was wrong after a death at each step of a change, each from the same start."""
    root, wrong = repository.root, []
    repository.write("comps.xml", GROUP.format("old"))
    repository.look()
    repository.index.close()
    start = root.with_name("start")
    shutil.copytree(root, start, symlinks=True)
    for number in range(1, 100):
        shutil.rmtree(root)
        shutil.copytree(start, root, symlinks=True)
        repository.index = repository.opened()
        repository.look()
        change(repository)
        with pytest.MonkeyPatch.context() as patch:
            steps = die_at(number, patch)
            with contextlib.suppress(Died):
                repository.look()
            ended = steps() < number
        assert repository.records  # each of them has its file, whole
        repository.index.close()
        if forgetting:
            shutil.rmtree(root / ".repowatch/companions")
        # It also may go while nobody looks.
        if number % 2 and (root / "modules.yaml").exists():
            (root / "modules.yaml").unlink()
        repository.index = repository.opened()
        repository.look()
        wanted = _wanted(root)
        kinds = set(repository.records) - {"primary", "filelists", "other"}
        if kinds != wanted or repository.index.companions.rejected.keys() != _broken(root):
            wrong.append(f"step {number}: {sorted(kinds)} instead of {sorted(wanted)}")
        elif "group" in kinds and _text(root) not in (b"<&", repository.says("group")):
            wrong.append(f"step {number}: another group")
        if ended:
            assert number > 3
            return wrong
        repository.index.close()
    raise AssertionError("it does not end")


def _text(root: Path) -> bytes:
    return (root / "comps.xml").read_bytes()


def _broken(root: Path) -> set[str]:
    return {"comps.xml"} if (root / "comps.xml").exists() and _text(root) == b"<&" else set()


def _wanted(root: Path) -> set[str]:
    kinds = {"modules"} if (root / "modules.yaml").exists() else set()
    return kinds | ({"group", "group_gz"} if (root / "comps.xml").exists() else set())


@pytest.mark.parametrize("name", CHANGES)
def test_a_death_at_any_step_breaks_no_view_and_the_next_start_converges(
    repository: Repository, name: str
) -> None:
    assert deaths(repository, CHANGES[name]) == []


def test_the_search_for_deaths_convicts_one_that_forgets_what_is_its_own(repository: Repository) -> None:
    assert deaths(repository, CHANGES["a new file"], forgetting=True)


def test_a_publication_of_packages_alone_looks_at_no_file_and_writes_nothing_down(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.write("comps.xml", GROUP.format("g"))
    repository.look()
    state = repository.root / ".repowatch/companions/state"
    before = state.stat()
    ordered: list[str] = []

    def order(name: str) -> tuple[bool, str]:
        ordered.append(name)
        return False, name

    monkeypatch.setattr(module, "_order", order)
    make_rpm(repository.root, "b")
    repository.look("b-1.0-1.noarch.rpm")
    assert b'"b-1.0-1.noarch.rpm"' in repository.says("primary")
    assert (state.stat(), ordered) == (before, [])
    assert "group" in repository.records
