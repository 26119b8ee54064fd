"""Any history of arrivals, moves and removals publishes what createrepo_c makes from scratch."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from repowatch.model import catalog
from repowatch.model.recipe import DEFAULT, Recipe
from repowatch.model.repomd import parse, render
from repowatch.repository.index import Index
from repowatch.repository.readers import Readers
from repowatch.system.clock import SystemClock
from tests.kit.oracle import createrepo, expected, packages, published
from tests.kit.rpms import Sig, append, flip_byte, layout, make_rpm, truncate

DIRECTORIES = ["", "x", "x-y", "x/y", "é ü", "a b#%&'\"<1>", "dir.rpm", "x/repodata"]
PLAIN = [
    "a.rpm",
    "a-1.rpm",
    "a.b.rpm",
    "B.rpm",
    "é.rpm",
    "a b#%&'\"<1>+~^.rpm",
    "\u2028.rpm",
    "tab\tnew\nline.rpm",
]
NOT_UTF_8 = os.fsdecode(b"caf\xe9.rpm")
HIDDEN = ["x/.a.rpm", ".hidden/a.rpm", "repodata/a.rpm"]


NAMES = [os.path.join(directory, name) for directory in DIRECTORIES for name in PLAIN[:3]] + PLAIN

RECIPES = [
    DEFAULT,
    Recipe(checksum="sha512"),
    Recipe(changelogs=0),
    Recipe(changelogs=3),
    Recipe(checksum="sha512", changelogs=None),
]


def options_of(recipe: Recipe) -> list[str]:
    """What createrepo_c has to be told to follow it."""
    changelogs = -1 if recipe.changelogs is None else recipe.changelogs
    return ["--checksum", recipe.checksum, f"--changelog-limit={changelogs}"]


names = st.sampled_from([*NAMES, NOT_UTF_8])
recipes = st.sampled_from(RECIPES)
directories = st.sampled_from([each for each in DIRECTORIES if each])


def make_good(directory: Path) -> list[Path]:
    """Packages that differ in what metadata says of them."""
    changelog = [(1_600_000_000 + day, "Anna <anna@example.org>", f"- <{day}> & more") for day in range(12)]
    return [
        make_rpm(directory, "plain"),
        make_rpm(directory, "plain", "2.0"),
        make_rpm(directory, "epoch", "1~rc1^git", "0.1", epoch=3, arch="x86_64", payload="xz"),
        make_rpm(
            directory, "texts", summary="Grüße <&> \"'", description=b"caf\xe9 in ISO-8859-1\n\n  and more"
        ),
        make_rpm(directory, "changes", changelog=changelog),
        make_rpm(directory, "source", source=True),
        make_rpm(directory, "old", format=3),
        make_rpm(directory, "new", format=6),
        make_rpm(directory, "empty", files={}),
        make_rpm(
            directory,
            "deps",
            requires=["a >= 1:2-3", "(b if c)", "/bin/sh", "a >= 1:2-3"],
            provides=["virtual = 1", "lib.so.1()(64bit)"],
            conflicts=["x < 1"],
            obsoletes=["y <= 2-1"],
        ),
        make_rpm(
            directory,
            "files",
            files={
                "/usr/bin/tool": b"#!",
                "/etc/a b&<c>.conf": b"x",
                "/var/lib/d/": b"",
                "/usr/share/é": b"",
            },
        ),
    ]


def make_bad(directory: Path) -> list[Path]:
    """Files that must not be listed."""
    damaged = [make_rpm(directory / "bad", name) for name in ("short", "long", "flipped", "lead")]
    truncate(damaged[0], size=damaged[0].stat().st_size - 1)
    append(damaged[1], data=b"\0")
    flip_byte(damaged[2], offset=layout(damaged[2]).payload + 5)
    flip_byte(damaged[3], offset=0)
    empty = directory / "bad" / "empty.rpm"
    empty.write_bytes(b"")
    text = directory / "bad" / "text.rpm"
    text.write_bytes(b"no package\n" * 100)
    control = make_rpm(directory / "bad", "control", summary="no \x01 XML can carry this")
    undigested = make_rpm(directory / "bad", "undigested", format=3, omit=[Sig.MD5])
    return [*damaged, empty, text, control, undigested]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Pool:
    """What the histories are made of: packages, damaged ones, and the processes that read them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.good = make_good(directory)
        self.bad = make_bad(directory)
        self._damaged = {digest(path) for path in self.bad}
        failing = ("control", "lead", "empty", "text")  # createrepo_c itself fails over them
        self.undescribable = {digest(path) for path in self.bad if path.name.startswith(failing)}
        self.readers = Readers(processes=1)
        self.threads = ThreadPoolExecutor(2)
        self._numbers = itertools.count()

    def close(self) -> None:
        self.readers.close()
        self.threads.shutdown()

    def new_path(self) -> Path:
        return self.directory / f"tree{next(self._numbers)}"

    def is_rejected(self, path: Path) -> bool:
        try:
            str(path).encode()
        except UnicodeEncodeError:
            return True
        return digest(path) in self._damaged

    def open(self, root: Path, recipe: Recipe = DEFAULT) -> Index:
        index = Index(
            str(root),
            name="test",
            readers=self.readers,
            pool=self.threads,
            clock=SystemClock(),
            recipe=recipe,
        )
        index.open()
        return index

    def expected(self, root: Path, recipe: Recipe = DEFAULT) -> dict[str, bytes]:
        return expected(
            root, scratch=self.new_path(), is_rejected=self.is_rejected, options=options_of(recipe)
        )

    def published_from_nothing(self, root: Path, recipe: Recipe) -> dict[str, str]:
        """The checksums that a daemon publishes over a copy of the tree, by type."""
        copy = self.new_path()
        subprocess.run(["cp", "-a", root, copy], check=True)
        shutil.rmtree(copy / "repodata", ignore_errors=True)
        shutil.rmtree(copy / ".repowatch", ignore_errors=True)
        index = self.open(copy, recipe)
        index.turn([], at_once=[""])
        index.close()
        checksums = checksums_of(copy)
        shutil.rmtree(copy)
        return checksums


@pytest.fixture(scope="module", autouse=True)
def short_segments() -> Iterator[None]:
    """Segments of about five, so that a few packages make many of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "REACH", 2)
        yield


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    pool = Pool(tmp_path_factory.mktemp("pool"))
    yield pool
    pool.close()


def checksums_of(root: Path) -> dict[str, str]:
    records = parse((root / "repodata" / "repomd.xml").read_bytes()).records
    return {record.type: record.checksum for record in records}


def different(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    """The metadata files that differ."""
    assert one.keys() == other.keys()
    return [kind for kind in one if one[kind] != other[kind]]


class History(RuleBasedStateMachine):
    """A tree to which things happen by file, and an index that looks at the names that were touched."""

    pool: Pool

    def __init__(self) -> None:
        super().__init__()
        self.root = self.pool.new_path()
        self.root.mkdir()
        self.recipe = DEFAULT
        self.index = self.pool.open(self.root, self.recipe)
        self.touched = {""}

    def teardown(self) -> None:
        self.publish()
        self.index.close()
        assert self.pool.published_from_nothing(self.root, self.recipe) == checksums_of(self.root)
        shutil.rmtree(self.root)

    def target(self, name: str) -> Path | None:
        """The path of a name with its directories made; None where something else is in the way."""
        path = self.root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            return None
        return None if path.is_dir() and not path.is_symlink() else path

    def touch(self, *paths: Path) -> None:
        self.touched |= {str(path.relative_to(self.root)) for path in paths}

    def touch_content(self, path: Path) -> None:
        """The kernel tells of one name of a file with hard links; only a rescan finds the others."""
        if path.exists() and path.stat().st_nlink > 1:
            self.touched.add("")
        self.touch(path)

    def existing(self, data: st.DataObject) -> Path | None:
        present = sorted(packages(self.root))
        return data.draw(st.sampled_from(present)) if present else None

    def copy(self, source: Path, name: str, *, in_place: bool, mtime: int) -> None:
        target = self.target(name)
        if target is None:
            return
        self.touch_content(target)
        written = target if in_place else self.root / ".aside"
        shutil.copyfile(source, written)
        os.utime(written, (mtime, mtime))
        written.replace(target)

    @rule(
        data=st.data(),
        name=names,
        in_place=st.booleans(),
        mtime=st.sampled_from([0, 1, 1_700_000_000, 2**31]),
    )
    def arrive(self, data: st.DataObject, name: str, in_place: bool, mtime: int) -> None:
        self.copy(data.draw(st.sampled_from(self.pool.good)), name, in_place=in_place, mtime=mtime)

    @rule(data=st.data(), chosen=st.sets(names, max_size=12))
    def arrive_in_numbers(self, data: st.DataObject, chosen: set[str]) -> None:
        for name in sorted(chosen):
            self.copy(data.draw(st.sampled_from(self.pool.good)), name, in_place=False, mtime=1_700_000_000)

    @rule(data=st.data(), name=names)
    def arrive_damaged(self, data: st.DataObject, name: str) -> None:
        self.copy(data.draw(st.sampled_from(self.pool.bad)), name, in_place=True, mtime=1_700_000_000)

    @rule(data=st.data(), name=st.sampled_from(HIDDEN))
    def arrive_hidden(self, data: st.DataObject, name: str) -> None:
        self.copy(data.draw(st.sampled_from(self.pool.good)), name, in_place=False, mtime=0)

    @rule(data=st.data(), name=names)
    def move(self, data: st.DataObject, name: str) -> None:
        source, target = self.existing(data), self.target(name)
        if source and target:
            source.replace(target)
            self.touch(source, target)

    @rule(data=st.data(), name=names)
    def link_hard(self, data: st.DataObject, name: str) -> None:
        source, target = self.existing(data), self.target(name)
        if source and target and not target.exists():
            target.hardlink_to(source)
            self.touch(source, target)

    @rule(data=st.data(), mtime=st.sampled_from([1, 1_700_000_001]))
    def change_mtime(self, data: st.DataObject, mtime: int) -> None:
        if path := self.existing(data):
            os.utime(path, (mtime, mtime))
            self.touch_content(path)

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        if path := self.existing(data):
            path.unlink()
            self.touch(path)

    @rule(old=directories, new=directories)
    def move_directory(self, old: str, new: str) -> None:
        one, other = self.root / old, self.root / new
        if one.is_dir() and not other.exists() and other.parent.is_dir() and one not in other.parents:
            one.rename(other)
            self.touch(one, other)

    @rule(name=directories)
    def remove_directory(self, name: str) -> None:
        shutil.rmtree(self.root / name, ignore_errors=True)
        self.touch(self.root / name)

    @rule(save=st.booleans())
    def restart(self, save: bool) -> None:
        if save:
            self.index.save()
        self.index.close()
        self.index = self.pool.open(self.root, self.recipe)
        self.touched = {""}

    @rule(save=st.booleans(), recipe=recipes)
    def configure(self, save: bool, recipe: Recipe) -> None:
        self.recipe = recipe
        self.restart(save)

    @rule(by=st.sampled_from(["createrepo_c", "us"]), theirs=recipes)
    def lose_the_cache(self, by: str, theirs: Recipe) -> None:
        """The next start knows nothing but what is published, by us or by another tool."""
        self.index.close()
        shutil.rmtree(self.root / ".repowatch", ignore_errors=True)
        if by == "createrepo_c":
            for path in list(packages(self.root)):
                if digest(path) in self.pool.undescribable:
                    path.unlink()
            shutil.rmtree(self.root / "repodata", ignore_errors=True)
            createrepo(self.root, *options_of(theirs))
        self.index = self.pool.open(self.root, self.recipe)
        self.touched = {""}

    @rule()
    def look_at_everything(self) -> None:
        self.touched.add("")

    @rule()
    def publish(self) -> None:
        self.index.turn([], at_once=self.touched)
        self.touched = set()
        # What a restart took over from the metadata alone is as it was published only when it was checked.
        while (checking := self.index.check_some()) is not None:
            self.index.turn([], checked=[checking.result()])
        assert different(published(self.root), self.pool.expected(self.root, self.recipe)) == []


def test_any_history_publishes_what_createrepo_c_makes_from_scratch(pool: Pool) -> None:
    """And what another daemon over an equal tree publishes, to the byte."""

    class HistoryOfPool(History):
        pass

    HistoryOfPool.pool = pool
    run_state_machine_as_test(
        HistoryOfPool,
        settings=settings(
            max_examples=15,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )


@pytest.fixture
def tree(pool: Pool) -> Iterator[Path]:
    """A published tree of every package of the pool, in several segments."""
    root = pool.new_path()
    for package, name in zip(itertools.cycle(pool.good), [*NAMES, NOT_UTF_8], strict=False):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(package, root / name)
    for package in pool.bad:
        shutil.copy2(package, root)
    index = pool.open(root)
    index.turn([], at_once=[""])
    assert index.publication is not None
    assert set(index.publication.entries) == set(NAMES)
    index.close()
    yield root
    shutil.rmtree(root)


def test_a_tree_of_everything_is_published_as_createrepo_c_does(pool: Pool, tree: Path) -> None:
    assert different(published(tree), pool.expected(tree)) == []


@pytest.mark.parametrize("recipe", RECIPES[1:], ids=lambda recipe: f"{recipe.checksum}-{recipe.changelogs}")
def test_a_tree_of_everything_is_published_anew_by_another_recipe(
    pool: Pool, tree: Path, recipe: Recipe
) -> None:
    """At once, and once: what the cache knows is not taken over."""
    index = pool.open(tree)
    index.turn([], at_once=[""])
    index.save()
    index.close()
    before = published(tree)
    index = pool.open(tree, recipe)
    index.turn([], at_once=[""])
    assert index.unchecked == 0
    assert different(published(tree), pool.expected(tree, recipe)) == []
    assert different(published(tree), before) != []
    index.close()


def test_the_oracle_convicts_another_recipe(pool: Pool, tree: Path) -> None:
    seen = published(tree)
    assert different(seen, pool.expected(tree, Recipe(checksum="sha512"))) == [
        "primary",
        "filelists",
        "other",
    ]
    assert different(seen, pool.expected(tree, Recipe(changelogs=11))) == ["other"]


def test_the_oracle_convicts_one_altered_element(pool: Pool, tree: Path) -> None:
    seen = published(tree)
    os.utime(tree / NAMES[0], (5, 5))
    assert different(seen, pool.expected(tree)) == ["primary"]


def test_the_oracle_convicts_another_package_of_the_same_name(pool: Pool, tree: Path) -> None:
    seen = published(tree)
    replaced = pool.good[4] if digest(tree / NAMES[0]) != digest(pool.good[4]) else pool.good[0]
    shutil.copyfile(replaced, tree / NAMES[0])
    assert different(seen, pool.expected(tree)) == ["primary", "filelists", "other"]


def test_the_oracle_convicts_another_order(pool: Pool, tree: Path) -> None:
    seen = published(tree)
    for kind, content in seen.items():
        head, first, second, *rest = content.split(b"<package ")
        seen[kind] = b"<package ".join([head, second, first, *rest])
    assert different(seen, pool.expected(tree)) == ["primary", "filelists", "other"]


def test_the_oracle_convicts_a_listed_file_that_is_damaged(pool: Pool, tree: Path) -> None:
    seen = published(tree)
    shutil.copyfile(pool.bad[0], tree / NAMES[0])
    assert different(seen, pool.expected(tree)) == ["primary", "filelists", "other"]


@pytest.mark.parametrize("options", [["--no-database"], ["--database"], ["--checksum", "sha512"]])
def test_repomd_is_rendered_as_createrepo_c_writes_it(tmp_path: Path, options: list[str]) -> None:
    make_good(tmp_path)
    createrepo(tmp_path, *options)
    text = (tmp_path / "repodata" / "repomd.xml").read_bytes()
    assert render(parse(text)) == text


def test_the_frames_of_createrepo_c_are_ours_where_there_is_no_package(pool: Pool) -> None:
    root = pool.new_path()
    root.mkdir()
    index = pool.open(root)
    index.turn([], at_once=[""])
    index.close()
    assert different(published(root), pool.expected(root)) == []
    assert all(gzip.decompress(path.read_bytes()) for path in (root / "repodata").glob("*.gz"))
