"""README.md and the pages of docs/ speak of what there is: links, modules, commands, keys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from repowatch.cli import main
from repowatch.config import load
from tests.kit.pages import PAGES, PROJECT, anchors, blocks, links, section
from tests.unit.test_config import KEY

README = PAGES["README.md"].read_text()
HOUSE = PAGES["docs/house.md"].read_text()

PLACES = {
    "repository": ["repository"],
    "web": ["web"],
    "config, system, model": ["config", "system", "model"],
}

# Keys of one repository, which pages show without it; what is no configuration of ours has others.
OF_ONE = {"prune", "grace"}
FOREIGN = {"id", "scrape_configs", "rule_files"}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_files_and_headings(name: str) -> None:
    for target in links(PAGES[name].read_text()):
        path, _, anchor = target.partition("#")
        found = (PAGES[name].parent / path).resolve() if path else PAGES[name]
        assert found.exists(), target
        assert not anchor or anchor in anchors(found.read_text()), target


def test_a_link_is_dead_where_nothing_is() -> None:
    assert links("[a](b.md#c-d), [e](https://example.org/)") == ["b.md#c-d"]
    assert anchors("# The `house`\n\n## Who: what?\n") == {"the-house", "who-what"}


@pytest.mark.parametrize("name", PAGES)
def test_what_is_configured_on_a_page_is_right(name: str, tmp_path: Path) -> None:
    (tmp_path / "gnupg").mkdir()
    for file in ("cert.pem", "key.pem"):
        (tmp_path / file).touch()
    (tmp_path / "RPM-GPG-KEY-example").write_text(KEY)
    for block in filter(_is_configuration, blocks(PAGES[name].read_text())):
        path = tmp_path / "repowatch.yaml"
        path.write_text(re.sub(r"/(?:etc|var/lib)/(?:repowatch|pki/rpm-gpg)/", f"{tmp_path}/", _whole(block)))
        assert load(str(path)).repositories or load(str(path)).patterns


def _is_configuration(block: str) -> bool:
    read = _read(block)
    return isinstance(read, dict) and all(map(str.isidentifier, read)) and not read.keys() & FOREIGN


def _read(block: str) -> Any:
    try:
        return yaml.safe_load(block)
    except yaml.YAMLError:
        return None


def _whole(block: str) -> str:
    """A configuration that has what a page leaves out."""
    block = block.replace("[FINGERPRINT]", f"[{'A' * 40}]")
    settings = _read(block)
    if settings.keys() <= OF_ONE:
        return yaml.safe_dump({"repositories": {"rpm": {"path": "/srv/rpm", **settings}}})
    if "repositories" not in settings:
        return f"{block}\nrepositories: {{rpm: {{path: /srv/rpm}}}}\n"
    return block


def test_the_readme_lists_the_commands_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    there_are = set(re.findall(r"^ {4}([a-z-]+)(?: |$)", capsys.readouterr().out, re.MULTILINE))
    [listed] = [block for block in blocks(README) if block.startswith("repowatch serve DIR")]
    assert set(re.findall(r"^repowatch ([a-z-]+)", listed, re.MULTILINE)) == there_are


def test_what_is_promised_is_shown_by_tests_that_there_are() -> None:
    named = set(re.findall(r"\btest_[a-z_]+", PAGES["docs/promises.md"].read_text()))
    assert named
    assert not named - {path.stem for path in (PROJECT / "tests").glob("**/test_*.py")}


@pytest.mark.parametrize("wing", PLACES)
def test_the_house_has_a_place_for_each_module(wing: str) -> None:
    head = section(f"\n## {HOUSE}", "# The house")
    table = re.split(r"^\| (?=[a-z, ]+ \| \|$)", head, flags=re.MULTILINE)
    [rows] = [each for each in table if each.startswith(f"{wing} | |")]
    cells = re.findall(r"^\| ((?:[a-z]+: )?`.*?) \|", rows, re.MULTILINE)
    named = sorted(name for cell in cells for name in re.findall(r"`([a-z_]+)`", cell))
    files = [path for each in PLACES[wing] for path in (PROJECT / "repowatch" / each).rglob("[!_]*.py")]
    assert named == sorted(path.stem for path in files)
