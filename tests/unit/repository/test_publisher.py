"""What clients find in repodata/ before, during and after a publication."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from repowatch.errors import RepowatchError
from repowatch.model.repomd import Record, Repomd, parse, render
from repowatch.repository.publisher import Placement, PlacementRefused, Publisher
from repowatch.repository.segments import MetadataFile, Write, make_files
from repowatch.repository.sums import OpenSums
from tests.kit.clock import FakeClock
from tests.unit.model.test_catalog import catalog_of, package

NOW = 1_700_000_000


def metadata(*names: str, write: Write = lambda kind, parts: None) -> tuple[MetadataFile, ...]:
    """The metadata files of packages with these names."""
    catalog = catalog_of(map(package, names))
    with ThreadPoolExecutor(1) as pool:
        return make_files(catalog.segments, catalog.form, pool=pool, write=write, sums=OpenSums())


class Repository:
    """A directory, and the publisher that writes it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.staging = root / ".staging"
        self.staging.mkdir()
        self.clock = FakeClock(NOW)
        self.publisher = self.opened()

    def opened(self) -> Publisher:
        """A publisher as after a restart."""
        publisher = Publisher(str(self.root), staging=str(self.staging), clock=self.clock, keep_space=None)
        publisher.take_over()
        return publisher

    def publish(
        self, *names: str, placements: Sequence[Placement] = (), removals: Sequence[Path] = ()
    ) -> Repomd:
        return self.publisher.publish(
            self.written(*names), placements=placements, removals=[str(path) for path in removals]
        )

    def written(self, *names: str) -> tuple[MetadataFile, ...]:
        return metadata(*names, write=self.publisher.write_aside)

    def seen(self) -> Repomd:
        """What a client sees: every record has to be what it says."""
        repomd = parse((self.root / "repodata" / "repomd.xml").read_bytes())
        for record in repomd.records:
            content = (self.root / record.location_href).read_bytes()
            assert hashlib.new(record.checksum_type, content).hexdigest() == record.checksum
            assert len(content) == record.size
        return repomd

    def shows(self, *names: str) -> bool:
        made = {file.checksum for file in metadata(*names)}
        return made <= {record.checksum for record in self.seen().records}

    def placement(self, name: str, check: Callable[[], None] = lambda: None) -> Placement:
        staged = self.staging / name.replace("/", "-")
        staged.write_bytes(name.encode())
        return Placement(str(staged), str(self.root / name), check)

    def add_foreign(self, *types: str) -> None:
        """Another tool adds records to repomd.xml, as modifyrepo_c does."""
        records = list(self.seen().records)
        for type in types:
            path = self.root / "repodata" / f"{type}.foreign"
            path.write_bytes(type.encode())
            checksum = hashlib.sha256(type.encode()).hexdigest()
            records.append(Record(type, checksum, f"repodata/{path.name}", NOW, len(type)))
        text = render(Repomd(self.seen().revision, tuple(records)))
        (self.root / "repodata" / "repomd.xml").write_bytes(text)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def refuse() -> None:
    raise RepowatchError("not now")


def test_the_first_publication_is_whole_and_has_the_time_as_its_revision(repository: Repository) -> None:
    published = repository.publish("a.rpm")
    assert repository.seen() == published
    assert published.revision == NOW
    assert {record.type for record in published.records} == {"primary", "filelists", "other"}
    assert {record.timestamp for record in published.records} == {NOW}
    assert os.listdir(repository.staging) == []


def test_the_repomd_file_tells_checksum_and_inode_of_repomd_xml(repository: Repository) -> None:
    repository.publish("a.rpm")
    path = repository.root / "repodata" / "repomd.xml"
    for publisher in (repository.publisher, repository.opened()):
        assert publisher.repomd_file.checksum == hashlib.sha256(path.read_bytes()).hexdigest()
        assert publisher.repomd_file.inode == path.stat().st_ino


def test_revisions_grow_within_one_second_and_when_the_clock_is_set_back(repository: Repository) -> None:
    assert repository.publish("a.rpm").revision == NOW
    assert repository.publish("b.rpm").revision == NOW + 1
    repository.clock.jump(-1e6)
    assert repository.publish("c.rpm").revision == NOW + 2
    repository.publisher = repository.opened()
    assert repository.publish("d.rpm").revision == NOW + 3
    repository.clock.jump(2e6)
    assert repository.publish("e.rpm").revision == NOW + 1_000_000


def test_timestamps_never_go_back(repository: Repository) -> None:
    repository.publish("a.rpm")
    repository.clock.jump(-1e6)
    assert {record.timestamp for record in repository.publish("b.rpm").records} == {NOW}


def test_a_file_that_stays_keeps_its_timestamp(repository: Repository) -> None:
    before = repository.publish("a.rpm")
    repository.clock.advance(100)
    unchanged, changed = repository.written("a.rpm")[1:], repository.written("b.rpm")[0]
    after = repository.publisher.publish([changed, *unchanged])
    assert after.records[1:] == before.records[1:]
    assert after.records[0].timestamp == NOW + 100


def test_superseded_files_remain_for_an_hour(repository: Repository) -> None:
    old = repository.publish("a.rpm")
    repository.publish("b.rpm")
    repository.clock.advance(3599)
    assert repository.publisher.sweep() == []
    assert all((repository.root / record.location_href).exists() for record in old.records)
    repository.clock.advance(1)
    assert len(repository.publisher.sweep()) == 3
    assert not any((repository.root / record.location_href).exists() for record in old.records)
    assert repository.shows("b.rpm")


def test_swept_files_are_written_again_when_they_are_needed_again(repository: Repository) -> None:
    repository.publish("a.rpm")
    repository.publish("b.rpm")
    repository.clock.advance(3600)
    repository.publisher.sweep()
    repository.publish("a.rpm")
    assert repository.shows("a.rpm")


def test_a_restart_finds_what_is_published(repository: Repository) -> None:
    repository.publish("a.rpm")
    publisher = repository.opened()
    assert publisher.repomd == repository.seen()
    assert publisher.is_published(metadata("a.rpm"))
    assert publisher.is_current([record.location_href for record in publisher.repomd.records])
    assert not publisher.is_published(metadata("b.rpm"))


def test_a_damaged_metadata_file_is_found_at_the_start_and_written_again(repository: Repository) -> None:
    record = repository.publish("a.rpm").records[0]
    (repository.root / record.location_href).write_bytes(b"damaged")
    repository.publisher = repository.opened()
    assert not repository.publisher.is_published(metadata("a.rpm"))
    assert not repository.publisher.is_current(
        [each.location_href for each in repository.publisher.repomd.records]
    )
    repository.publish("a.rpm")
    assert repository.shows("a.rpm")


@pytest.mark.parametrize("text", [b"", b"\0" * 3000, b"<repomd>"])
def test_a_damaged_repomd_counts_as_none_and_is_replaced(repository: Repository, text: bytes) -> None:
    repository.publish("a.rpm")
    (repository.root / "repodata" / "repomd.xml").write_bytes(text)
    repository.publisher = repository.opened()
    assert repository.publisher.repomd == Repomd(0, ())
    assert not repository.publisher.is_published(metadata("a.rpm"))
    repository.publish("a.rpm")
    assert repository.shows("a.rpm")


def test_a_repomd_that_went_away_takes_no_revision_with_it(repository: Repository) -> None:
    before = repository.publish("a.rpm")
    repository.clock.jump(-1e6)
    (repository.root / "repodata" / "repomd.xml").unlink()
    assert repository.publisher.is_disturbed()
    repository.publisher.take_over()
    assert repository.publish("a.rpm").revision == before.revision + 1


@pytest.mark.parametrize("disturbance", ["repomd.xml replaced", "a file cut short", "all removed"])
def test_what_others_do_to_repodata_is_noticed_and_mended(repository: Repository, disturbance: str) -> None:
    record = repository.publish("a.rpm").records[0]
    assert not repository.publisher.is_disturbed()
    repodata = repository.root / "repodata"
    match disturbance:
        case "repomd.xml replaced":
            (repodata / "new").write_bytes((repodata / "repomd.xml").read_bytes())
            (repodata / "new").rename(repodata / "repomd.xml")
        case "a file cut short":
            os.truncate(repository.root / record.location_href, record.size - 1)
        case "all removed":
            shutil.rmtree(repodata)
    assert repository.publisher.is_disturbed()
    repository.publisher.take_over()
    repository.publish("a.rpm")
    assert repository.shows("a.rpm")
    assert not repository.publisher.is_disturbed()


def test_records_of_other_tools_are_carried_along(repository: Repository) -> None:
    repository.publish("a.rpm")
    repository.add_foreign("group", "updateinfo", "modules")
    foreign = repository.seen().records[3:]
    repository.publisher = repository.opened()
    repository.publish("b.rpm")
    assert repository.seen().records[3:] == foreign
    assert repository.shows("b.rpm")


def test_what_other_tools_made_from_the_packages_is_not_carried_along(repository: Repository) -> None:
    repository.publish("a.rpm")
    repository.add_foreign("primary_db", "filelists_zck", "filelists-ext", "other_db")
    repository.publisher = repository.opened()
    assert not repository.publisher.is_published(metadata("a.rpm"))
    published = repository.publish("b.rpm")
    assert [record.type for record in published.records] == ["primary", "filelists", "other"]


def test_a_record_whose_file_is_missing_is_not_carried_along(repository: Repository) -> None:
    repository.publish("a.rpm")
    repository.add_foreign("group")
    repository.publisher = repository.opened()
    (repository.root / "repodata" / "group.foreign").unlink()
    assert len(repository.publish("b.rpm").records) == 3


def test_packages_get_their_names_and_new_directories(repository: Repository) -> None:
    placements = [repository.placement(name) for name in ("a.rpm", "new/er/b.rpm")]
    repository.publish("a.rpm", "new/er/b.rpm", placements=placements)
    assert (repository.root / "a.rpm").read_bytes() == b"a.rpm"
    assert (repository.root / "new" / "er" / "b.rpm").read_bytes() == b"new/er/b.rpm"


def test_a_package_gets_its_name_after_the_metadata_files_and_before_repomd_xml(
    repository: Repository,
) -> None:
    repository.publish("a.rpm")
    doomed = repository.root / "doomed.rpm"
    doomed.write_bytes(b"")
    calls = []

    def check() -> None:
        calls.append("check")
        assert repository.shows("a.rpm")
        assert not (repository.root / "b.rpm").exists()
        assert doomed.exists()
        for file in metadata("b.rpm"):
            path = repository.root / "repodata" / file.name
            assert hashlib.sha256(path.read_bytes()).hexdigest() == file.checksum

    repository.publish("b.rpm", placements=[repository.placement("b.rpm", check)], removals=[doomed])
    assert calls == ["check"]
    assert repository.shows("b.rpm")
    assert not doomed.exists()


def test_a_refused_package_leaves_the_old_view_and_tells_what_has_its_name(repository: Repository) -> None:
    repository.publish("a.rpm")
    placements = [
        repository.placement("b.rpm"),
        repository.placement("c.rpm", refuse),
        repository.placement("d.rpm"),
    ]
    with pytest.raises(PlacementRefused, match="not now") as raised:
        repository.publish("a.rpm", "b.rpm", "c.rpm", "d.rpm", placements=placements)
    assert raised.value.refused is placements[1]
    assert raised.value.placed == (placements[0],)
    assert repository.shows("a.rpm")
    assert repository.publisher.repomd == repository.seen()
    assert sorted(path.name for path in repository.root.glob("*.rpm")) == ["b.rpm"]
    repository.publish("a.rpm", "b.rpm")
    assert repository.shows("a.rpm", "b.rpm")


def test_a_name_that_a_directory_has_is_refused(repository: Repository) -> None:
    (repository.root / "a.rpm").mkdir()
    with pytest.raises(PlacementRefused):
        repository.publish("a.rpm", placements=[repository.placement("a.rpm")])


def test_a_package_is_removed_only_once_repomd_xml_does_not_list_it(repository: Repository) -> None:
    repository.publish("a.rpm")
    (repository.root / "a.rpm").write_bytes(b"")
    repomd = repository.root / "repodata" / "repomd.xml"
    repomd.rename(repomd.with_name("kept"))
    (repomd / "in the way").mkdir(parents=True)
    with pytest.raises(OSError):
        repository.publish(removals=[repository.root / "a.rpm"])
    assert (repository.root / "a.rpm").exists()


def test_removing_a_package_that_is_gone_is_no_trouble(repository: Repository) -> None:
    repository.publish("a.rpm", removals=[repository.root / "gone.rpm", repository.root / "no" / "dir.rpm"])
    assert repository.shows("a.rpm")


def test_a_repomd_that_yum_would_refuse_is_not_published(repository: Repository) -> None:
    before = repository.publish("a.rpm")
    repository.add_foreign("group")
    group = repository.seen().records[3]
    many = tuple(replace(group, type=f"group{number}") for number in range(1000))
    text = render(Repomd(before.revision, before.records + many))
    (repository.root / "repodata" / "repomd.xml").write_bytes(text)
    repository.publisher = repository.opened()
    with pytest.raises(RepowatchError, match="yum reads at most 100000"):
        repository.publish("b.rpm")
    assert (repository.root / "repodata" / "repomd.xml").read_bytes() == text
