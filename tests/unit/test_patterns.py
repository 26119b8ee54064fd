from __future__ import annotations

import os
from pathlib import Path

import pytest

from repowatch.config import Config
from repowatch.config.file import parse
from repowatch.config.patterns import Found, at_url, baseurl, expand

FAMILY = '"el{{1}}-{{2}}": {{path: "{root}/el*/*", url: "/el{{1}}/{{2}}/"}}'


def config(root: Path, *lines: str) -> Config:
    """`root` is filled in where the lines, each a repository, say so."""
    body = "".join(f"  {line.format(root=root)}\n" for line in lines)
    return parse(f"repositories:\n{body}", source="c.yaml")


def make(root: Path, *directories: str) -> None:
    for each in directories:
        (root / each).mkdir(parents=True)


def names(found: Found) -> list[str]:
    return [each.name for each in found.repositories]


def reasons(found: Found, root: Path) -> dict[str, str]:
    return {os.path.relpath(each.path, root): each.reason for each in found.refused}


def test_each_directory_that_a_pattern_finds_is_a_repository_with_the_settings_of_the_pattern(
    tmp_path: Path,
) -> None:
    make(tmp_path, "el8/x86_64", "el9/x86_64", "el9/aarch64", "fedora/x86_64", "el9/x86_64/deeper")
    (tmp_path / "el9" / "README").touch()
    line = FAMILY.replace('/"}}', '/", settle: 1s, read: [anna]}}')
    found = expand(config(tmp_path, "rpm: {{path: /srv/rpm}}", line))
    assert [(each.name, each.path, each.url) for each in found.repositories] == [
        ("rpm", "/srv/rpm", "/rpm/"),
        ("el8-x86_64", f"{tmp_path}/el8/x86_64", "/el8/x86_64/"),
        ("el9-aarch64", f"{tmp_path}/el9/aarch64", "/el9/aarch64/"),
        ("el9-x86_64", f"{tmp_path}/el9/x86_64", "/el9/x86_64/"),
    ]
    assert {(each.settle, each.read) for each in found.repositories[1:]} == {(1.0, ("anna",))}
    assert not found.refused


def test_what_can_not_be_served_is_told_with_its_reason(tmp_path: Path) -> None:
    make(tmp_path, "lost+found", ".snapshot", "a b", "metrics", "x.repo", "rpm", "good")
    lines = ("rpm: {{path: /srv/rpm}}", '"{{1}}": {{path: "{root}/*"}}')
    found = expand(config(tmp_path, *lines))
    assert names(found) == ["rpm", "good"]
    told = reasons(found, tmp_path)
    assert told["lost+found"] == "it belongs to the file system"
    assert told[".snapshot"] == "hidden directories are never served"
    assert told["a b"].startswith("`/a b/` is not a path below /")
    assert told["metrics"].startswith("`metrics` is reserved")
    assert told["x.repo"].startswith("`x.repo` is reserved")
    assert told["rpm"] == "there is a repository `rpm` already"
    assert len(told) == 6


def test_what_is_named_wins_over_what_is_found(tmp_path: Path) -> None:
    make(tmp_path, "el8/x86_64", "el9/x86_64")
    named = 'old: {{path: "{root}/el8/x86_64", url: /el9/x86_64/}}'
    found = expand(config(tmp_path, FAMILY, named))
    assert names(found) == ["old"]
    assert reasons(found, tmp_path) == {"el9/x86_64": "its url `/el9/x86_64/` is that of `old`"}


def test_no_repository_is_found_inside_another(tmp_path: Path) -> None:
    make(tmp_path, "pool/a", "el9/x86_64")
    os.symlink(tmp_path / "pool" / "a" / "deep", tmp_path / "el9" / "inside")
    os.symlink(tmp_path / "pool", tmp_path / "el9" / "above")
    (tmp_path / "pool" / "a" / "deep").mkdir()
    found = expand(config(tmp_path, 'pool: {{path: "{root}/pool/a"}}', FAMILY))
    assert names(found) == ["pool", "el9-x86_64"]
    place = f"`{tmp_path}/pool"
    assert reasons(found, tmp_path) == {
        "el9/inside": f"its path {place}/a/deep/` lies inside that of `pool`",
        "el9/above": f"its path {place}/` contains that of `pool`",
    }


def test_of_two_patterns_the_first_has_what_both_could_call_the_same(tmp_path: Path) -> None:
    make(tmp_path, "a/x", "b/x", "b/y")
    lines = ('"p{{1}}": {{path: "{root}/a/*"}}', '"px{{1}}": {{path: "{root}/b/*"}}')
    found = expand(config(tmp_path, *lines))
    assert names(found) == ["px"]
    assert set(reasons(found, tmp_path).values()) == {
        "its name `pxx` is one that `p{1}` gives",
        "its name `pxy` is one that `p{1}` gives",
    }


def test_what_can_not_be_looked_into_is_told(tmp_path: Path) -> None:
    found = expand(config(tmp_path / "missing", FAMILY))
    assert found.repositories == ()
    assert reasons(found, tmp_path) == {"missing": "it can not be looked into: No such file or directory"}


def test_a_part_of_a_name_and_several_in_one_are_found(tmp_path: Path) -> None:
    make(tmp_path, "el9-x86_64/os", "el9-x86_64/debug", "el-/os", "el9/os")
    line = '"{{2}}-{{1}}-{{3}}": {{path: "{root}/el*-*/*", url: "/{{1}}/{{2}}/{{3}}/"}}'
    found = expand(config(tmp_path, line))
    assert [(each.name, each.url) for each in found.repositories] == [
        ("x86_64-9-debug", "/9/x86_64/debug/"),
        ("x86_64-9-os", "/9/x86_64/os/"),
    ]


@pytest.mark.parametrize("path", ["/el9/x86_64/", "/el9/x86_64"])
def test_a_url_means_the_directory_that_the_pattern_would_find(tmp_path: Path, path: str) -> None:
    member = at_url(config(tmp_path, FAMILY), path)
    assert member
    assert (member.name, member.path) == ("el9-x86_64", f"{tmp_path}/el9/x86_64")


@pytest.mark.parametrize("path", ["/", "/el9/", "/fedora/x86_64/", "/el9/x86_64/deeper/", "/el9/.x/"])
def test_other_urls_mean_none(tmp_path: Path, path: str) -> None:
    assert at_url(config(tmp_path, FAMILY), path) is None


def test_a_directory_that_is_about_to_be_made_is_judged_like_one_that_is_there(tmp_path: Path) -> None:
    named = "old: {{path: /srv/old, url: /el9/x86_64/}}"
    found = expand(config(tmp_path, named, FAMILY), also=[f"{tmp_path}/el9/x86_64", f"{tmp_path}/el9/arm"])
    assert names(found) == ["old", "el9-arm"]
    assert reasons(found, tmp_path)["el9/x86_64"] == "its url `/el9/x86_64/` is that of `old`"


def test_clients_are_told_their_own_variables_where_the_whole_family_suits_them(tmp_path: Path) -> None:
    make(tmp_path, "el8/x86_64", "el9/aarch64")
    configured = config(tmp_path, FAMILY)
    [first, second] = expand(configured).repositories
    told = {baseurl(each, [first, second]) for each in (first, second)}
    assert told == {"/el$releasever/$basearch/"}
    make(tmp_path, "el9/beta")
    everything = expand(configured).repositories
    assert [baseurl(each, everything) for each in everything] == [
        "/el$releasever/x86_64/",
        "/el$releasever/aarch64/",
        "/el$releasever/beta/",
    ]


def test_what_is_configured_for_clients_wins(tmp_path: Path) -> None:
    make(tmp_path, "el8/x86_64")
    line = FAMILY.replace('/"}}', '/", baseurl: "/e(l{{1}}/$basearch/"}}')
    [member] = expand(config(tmp_path, line)).repositories
    assert baseurl(member, [member]) == "/e%28l8/$basearch/"
    [named] = config(tmp_path, "rpm: {{path: /srv/rpm, baseurl: /el$releasever/rpm/}}").repositories
    assert baseurl(named, [named]) == "/el$releasever/rpm/"


def test_a_repository_that_is_named_is_told_by_its_url(tmp_path: Path) -> None:
    [named] = config(tmp_path, "rpm: {{path: /srv/rpm}}").repositories
    assert baseurl(named, [named]) is None
