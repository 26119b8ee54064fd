"""Real packages in any number, with metadata shaped like a distribution's.

Each source package of the corpus depends on the seed and its number alone, so that a small corpus is a
prefix of a large one. The shape, for a package: a file list of log-normal length (median 20, mean about 80),
ten changelog entries shared by the packages of one source, dependencies as a build would find them; about
11 kB of open XML in all. Payloads are empty files: what is measured is metadata.
"""

# ruff: noqa: S311, SIM905 - the same packages each time is what is wanted; word lists are easier to read

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from random import Random

from tests.kit.rpms import make_rpm

NEWEST = 1_700_000_000  # seconds since 1970; nothing depends on the clock
DAY = 86_400
MOST_FILES = 4000

Dependencies = tuple[list[str], list[str]]  # provides and requires


@dataclass(frozen=True, slots=True)
class Member:
    """One package of the corpus: which source it comes from and which of its packages it is."""

    source: int
    number: int


@dataclass(frozen=True, slots=True)
class Source:
    """What the packages of one source share."""

    name: str
    version: str
    release: str
    changelog: tuple[tuple[int, str, str], ...]


def members(seed: int) -> Iterator[Member]:
    """The packages of a corpus, without end."""
    source = 0
    while True:
        for number in range(_size_of(seed, source)):
            yield Member(source, number)
        source += 1


def make(
    directory: Path, count: int, *, seed: int = 1, skip: int = 0, processes: int | None = None
) -> list[Path]:
    """Write packages `skip` to `skip + count` of the corpus into `directory`/Packages/<letter>/.

    Returns their paths in the corpus's order, which is no alphabetical one.
    """
    wanted = islice(members(seed), skip, skip + count)
    write = partial(write_member, directory / "Packages", seed=seed)
    with ProcessPoolExecutor(processes or os.cpu_count(), mp_context=get_context("spawn")) as pool:
        return list(pool.map(write, wanted, chunksize=64))


def write_member(directory: Path, member: Member, *, seed: int, edition: int = 0) -> Path:
    """Write one package below `directory`. Other editions have the same name and other content."""
    source = _source(seed, member.source)
    random = Random(f"{seed}/{member.source}/{member.number}")
    kind = _KINDS[0 if member.number == 0 else 1 + random.randrange(len(_KINDS) - 1)]
    name = source.name if member.number == 0 else f"{source.name}-{kind}{member.number}"
    provides, requires = _dependencies(random, kind, name, source)
    return make_rpm(
        directory / name[0],
        name,
        source.version,
        source.release,
        arch="noarch" if kind in ("python", "doc") else "x86_64",
        files=dict.fromkeys(_paths(random, kind, name), b""),
        requires=requires,
        provides=provides,
        changelog=source.changelog,
        summary=_sentence(random, 4, 9),
        description="\n".join(_sentence(random, 8, 18) for _ in range(random.randint(2, 8))),
        build_time=NEWEST + edition,
    )


@cache
def _size_of(seed: int, source: int) -> int:
    """How many packages a source makes: mostly a few."""
    return Random(f"{seed}/{source}/size").choice((1, 1, 2, 3, 4, 5, 6, 8, 12))


@cache
def _source(seed: int, number: int) -> Source:
    random = Random(f"{seed}/{number}")
    version = f"{random.randint(0, 12)}.{random.randint(0, 30)}.{random.randint(0, 9)}"
    changelog = []
    when = NEWEST - random.randrange(900) * DAY
    for entry in range(10, 0, -1):
        lines = [_news(random, version) for _ in range(random.choice((1, 1, 1, 2, 4)))]
        changelog.append((when, f"{_person(random.randrange(300))} - {version}-{entry}", "\n".join(lines)))
        when -= random.randint(5, 120) * DAY
    # The number makes the name unique; the word before it puts it anywhere in the order.
    name = f"{_word(random)}{random.choice(('', '-' + _word(random)))}{number}"
    return Source(name, version, f"{random.randint(1, 30)}.fc39", tuple(changelog))


def _news(random: Random, version: str) -> str:
    match random.randrange(4):
        case 0:
            return f"- Update to {version} (rhbz#{random.randint(1_000_000, 2_299_999)})"
        case 1:
            return "- Rebuilt for https://fedoraproject.org/wiki/Fedora_39_Mass_Rebuild"
        case _:
            return "- " + _sentence(random, 5, 14)


@cache
def _person(number: int) -> str:
    random = Random(f"person {number}")
    first, last = _word(random), _word(random)
    return f"{first.capitalize()} {last.capitalize()} <{first}@{_word(random)}.example>"


# -- words -----------------------------------------------------------------------------------

_COMMON = """
the of a and to for with library tool command line files support provides package contains headers fast
parser server client protocol data format network interface module framework written in which used by
""".split()


def _words(count: int) -> list[str]:
    """A vocabulary that can be pronounced and compresses as names do."""
    random = Random("vocabulary")
    onsets = [
        *"bcdfghjklmnprstvwyz",
        "qu",
        "br",
        "cr",
        "dr",
        "fl",
        "gl",
        "gr",
        "pl",
        "pr",
        "st",
        "tr",
        "th",
        "sh",
    ]
    ends = ["", "", "", "n", "r", "s", "t", "l", "x", "nd", "rk", "st", "ck"]
    return [
        "".join(
            random.choice(onsets) + random.choice("aeiou") + random.choice(ends)
            for _ in range(random.choice((2, 2, 3)))
        )
        for _ in range(count)
    ]


_VOCABULARY = _words(8_000)


def _word(random: Random) -> str:
    # int(random() * n) is four times as fast as choice(), and most of a corpus is words.
    return _VOCABULARY[int(random.random() * len(_VOCABULARY))]


def _sentence(random: Random, low: int, high: int) -> str:
    words = [
        random.choice(_COMMON) if random.random() < 0.7 else _word(random)
        for _ in range(random.randint(low, high))
    ]
    return " ".join(words).capitalize() + "."


# -- files -----------------------------------------------------------------------------------


def _paths(random: Random, kind: str, name: str) -> list[str]:
    """The file list of one package."""
    count = min(MOST_FILES, max(1, int(random.lognormvariate(math.log(20), 1.665))))
    directories = [_word(random) for _ in range(1 + count // 12)]
    layout = _LAYOUTS[kind]
    paths: dict[str, None] = {}
    while len(paths) < count:
        directory = directories[int(random.random() * len(directories))]
        leaf = _word(random) if random.random() < 0.6 else f"{_word(random)}_{_word(random)}"
        paths.update(dict.fromkeys(layout(random, name, directory, leaf)))
    return list(paths)[:count]


def _tool(random: Random, name: str, directory: str, leaf: str) -> list[str]:
    chance = random.random()
    if chance < 0.08:
        return [f"/usr/bin/{leaf}", f"/usr/share/man/man1/{leaf}.1.gz"]
    if chance < 0.32:
        return [f"/usr/share/locale/{random.choice(_LANGUAGES)}/LC_MESSAGES/{leaf}.mo"]
    if chance < 0.37:
        return [f"/etc/{name}/{leaf}.conf"]
    if chance < 0.47:
        return [f"/usr/share/doc/{name}/{leaf.upper()}"]
    return [f"/usr/share/{name}/{directory}/{leaf}.{random.choice(('xml', 'json', 'png', 'txt'))}"]


def _library(random: Random, name: str, directory: str, leaf: str) -> list[str]:
    soname = f"/usr/lib64/lib{leaf}.so.{random.randint(0, 9)}"
    build_id = f"/usr/lib/.build-id/{random.randrange(256):02x}/{random.getrandbits(152):038x}"
    full = f"{soname}.{random.randint(0, 9)}.{random.randint(0, 9)}"
    return [soname, full] if random.random() < 0.5 else [soname, full, build_id]


def _headers(random: Random, name: str, directory: str, leaf: str) -> list[str]:
    if random.random() < 0.8:
        return [f"/usr/include/{name}/{directory}/{leaf}.h"]
    return [random.choice((f"/usr/lib64/pkgconfig/{leaf}.pc", f"/usr/share/man/man3/{leaf}.3.gz"))]


def _python(random: Random, name: str, directory: str, leaf: str) -> list[str]:
    package = f"/usr/lib/python3.11/site-packages/{name}/{directory}"
    compiled = f"{package}/__pycache__/{leaf}.cpython-311"
    return [f"{package}/{leaf}.py", f"{compiled}.pyc", f"{compiled}.opt-1.pyc"]


def _documents(random: Random, name: str, directory: str, leaf: str) -> list[str]:
    return [f"/usr/share/doc/{name}/html/{directory}/{leaf}.{random.choice(('html', 'png', 'js', 'svg'))}"]


_LANGUAGES = """
af ar bg ca cs da de el es et eu fa fi fr ga gl he hr hu id it ja ka ko lt nb nl pl pt ro ru sk sl sv tr uk
""".split()
_LAYOUTS: dict[str, Callable[[Random, str, str, str], list[str]]] = {
    "utils": _tool,
    "libs": _library,
    "devel": _headers,
    "python": _python,
    "doc": _documents,
}
_KINDS = tuple(_LAYOUTS)


# -- dependencies ----------------------------------------------------------------------------


def _dependencies(random: Random, kind: str, name: str, source: Source) -> Dependencies:
    provides: list[str] = []
    requires: list[str] = []
    if kind == "libs":
        provides += [_soname(random) for _ in range(random.randint(1, 4))]
    if kind == "python":
        provides += [f"python3dist({name})", f"python3.11dist({name})"]
        requires += ["python(abi) = 3.11"]
        requires += [f"python3.11dist({_word(random)})" for _ in range(random.randint(0, 5))]
    if kind == "devel":
        provides += [f"pkgconfig({_word(random)}) = {source.version}"]
        requires += ["/usr/bin/pkg-config", f"{source.name} = {source.version}-{source.release}"]
    if kind in ("libs", "utils"):
        requires += ["libc.so.6()(64bit)", "rtld(GNU_HASH)"]
        requires += [f"libc.so.6(GLIBC_2.{each})(64bit)" for each in random.sample(range(2, 38), 4)]
        requires += [_soname(random) for _ in range(random.randint(0, 12))]
    return provides, requires


def _soname(random: Random) -> str:
    return f"lib{_word(random)}.so.{random.randint(0, 9)}()(64bit)"
