"""Groups that are let through neither crash libcomps, which dnf reads them with, nor lack a name there."""

from __future__ import annotations

import random
import re
import subprocess
from pathlib import Path

import pytest

from repowatch.errors import BadMetadata
from repowatch.model.comps import check

COMPS = """\
<comps>
<group><id>a</id><name>A</name><name xml:lang="de">AA</name><description>d</description>
<default>true</default><uservisible>true</uservisible><display_order>3</display_order>
<langonly>de</langonly><biarchonly>false</biarchonly>
<packagelist><packagereq type="optional" arch="x86_64" basearchonly="true">p</packagereq>
<packagereq type="conditional" requires="q">q</packagereq><packagereq>r</packagereq></packagelist></group>
<category><id>c</id><name>C</name><description>d</description><display_order>5</display_order>
<grouplist><groupid>a</groupid></grouplist></category>
<environment><id>e</id><name>E</name><description>d</description><display_order>5</display_order>
<grouplist><groupid>a</groupid></grouplist><optionlist><groupid default="true">b</groupid></optionlist>
</environment>
<langpacks><match install="x-%s" name="x"/></langpacks>
<blacklist><package name="x" arch="y"/></blacklist>
<whiteout><ignoredep requires="r" package="p"/></whiteout>
</comps>
"""
PIECES = re.findall(r"<[^>]*>|[^<]+", COMPS)
SPOILT = 600

# Reads each file of a directory in a process of its own; tells how each ended.
READ = """\
import libcomps, os, sys
for name in sorted(os.listdir(sys.argv[1])):
    if not os.fork():
        os.close(2)
        found = libcomps.Comps()
        found.fromxml_f(os.path.join(sys.argv[1], name))
        groups = [*found.groups, *found.categories, *found.environments]
        os._exit(0 if all(each.id and each.name for each in groups) else 1)
    print(name, os.wait()[1])
"""


def spoilt(chance: random.Random) -> str:
    """The text without one thing that it says, or with another in its place."""
    pieces = list(PIECES)
    at = chance.randrange(1, len(pieces) - 1)
    match chance.randrange(4):
        case 0:
            pieces[at] = re.sub(' [a-z]+="[^"]*"', "", pieces[at], count=1)
        case 1:
            pieces[at] = re.sub('"[^"]*"', chance.choice(['""', '"x"', '"999"']), pieces[at], count=1)
        case 2 if not pieces[at].startswith("<"):
            pieces[at] = chance.choice(["", " ", "-1", "x"])
        case _ if (element := re.match("<([a-z_]+)", pieces[at])) and f"</{element[1]}>" in pieces[at:]:
            del pieces[at : pieces.index(f"</{element[1]}>", at) + 1]
    return "".join(pieces)


@pytest.mark.client("dnf")
def test_what_is_let_through_is_read_by_libcomps(tmp_path: Path) -> None:
    chance = random.Random(7)
    texts = [COMPS, *sorted({spoilt(chance) for _ in range(SPOILT)})]
    for number, text in enumerate(texts):
        (tmp_path / f"{number:03}").write_text(text)
    # The interpreter that dnf runs in.
    told = subprocess.run(
        ["/usr/bin/python3", "-c", READ, str(tmp_path)], capture_output=True, text=True, check=True
    )
    ends = [int(line.split()[1]) for line in told.stdout.splitlines()]
    assert ends[0] == 0
    assert sum(end != 0 for end in ends) > 10  # the oracle tells one from the other
    for text, end in zip(texts, ends, strict=True):
        try:
            check(text.encode())
        except BadMetadata:
            continue
        assert end == 0, text
