"""comps.xml: what is let through, and the line and reason of what is not."""

from __future__ import annotations

import pytest

from repowatch.errors import BadMetadata
from repowatch.model import elements
from repowatch.model.comps import check

GROUP = b"""\
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE comps PUBLIC "-//Red Hat, Inc.//DTD Comps info//EN" "comps.dtd">
<comps>
<group><id>a</id><name>A</name><name xml:lang="de">AA</name>
<packagelist><packagereq type="optional">p</packagereq><packagereq>q</packagereq></packagelist></group>
<environment><id>e</id><name>E</name><grouplist><groupid>a</groupid></grouplist></environment>
<langpacks><match install="x-%s" name="x"/></langpacks>
</comps>
"""


def reason(content: bytes) -> str:
    with pytest.raises(BadMetadata) as caught:
        check(content)
    return str(caught.value)


def test_what_distributions_write_is_let_through() -> None:
    check(GROUP)
    check(b"<comps/>")


@pytest.mark.parametrize(
    ("wrong", "right", "told"),
    [
        (b"", b"</comps>", "line 9: not XML: no element found"),
        (b"<id></id>", b"<id>a</id>", "line 5: the group that ends here has no <id>"),
        (b"", b"<name>E</name>", "line 6: the environment that ends here has no <name>"),
        (b'type="any"', b'type="optional"', "line 5: the type 'any' is not one of mandatory, default"),
        (b"> <", b">p<", "line 5: <packagereq> says nothing"),
        (b"<groupid/>", b"<groupid>a</groupid>", "line 6: <groupid> says nothing"),
        (
            b"<groups/><group><id>a",
            b"<group><id>a",
            "line 4: <groups> is unknown; clients would leave it out",
        ),
        (b"<langpack/>", b'<langpacks><match install="x-%s" name="x"/></langpacks>', "line 7: <langpack> is"),
        (b'<name xml:lang="de">', b"<name>", "line 5: the group that ends here has no <name>"),
        (b"<display_order/></group>", b"</group>", "line 5: <display_order> says nothing"),
        (b"<uservisible> </uservisible></group>", b"</group>", "line 5: <uservisible> says nothing"),
        (b"", b' name="x"', "line 7: <match> has no name"),
        (b"<blacklist><package/>", b"<langpacks>", "line 7: <package> has no name"),
        (b"<whiteout><ignoredep/>", b"<langpacks>", "line 7: <ignoredep> has no requires"),
        (b'"UTF-16"', b'"UTF-8"', "line 1: "),
        (b'"koi8-r"', b'"UTF-8"', "line 1: the encoding koi8-r is not read"),
        (b"<!DOCTYPE comps [<!ENTITY p 'q'>]>\n<comps>", b"<comps>", "line 3: not XML: "),
    ],
)
def test_what_clients_would_fail_on_or_leave_out_is_told(wrong: bytes, right: bytes, told: str) -> None:
    assert GROUP.count(right) >= 1
    assert reason(GROUP.replace(right, wrong, 1)).startswith(told)


def test_utf_16_that_does_not_say_so_is_refused() -> None:
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        assert reason("<comps/>".encode(encoding)) == "line 1: not UTF-8; save it as UTF-8"
    check(b"\xef\xbb\xbf<comps/>")


def test_what_would_take_minutes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elements, "_MOST", 3)
    check(b"<comps><langpacks/><langpacks/></comps>")
    assert reason(b"<comps><langpacks/><langpacks/>\n<langpacks/></comps>") == "line 2: more than 3 elements"


def test_another_root_element_is_refused() -> None:
    assert reason(b"<groups/>") == "line 1: the root element is <groups>, not <comps>"


def test_entities_are_refused_declared_or_not() -> None:
    declared = b"<!DOCTYPE comps [\n<!ENTITY a 'b'>\n]>\n<comps/>"
    assert reason(declared) == "line 2: entities are not allowed; write out what it stands for"
    laughs = b"".join(b"<!ENTITY l%d '&l%d;&l%d;'>" % (n, n - 1, n - 1) for n in range(1, 30))
    assert "entities are not allowed" in reason(
        b"<!DOCTYPE comps [<!ENTITY l0 'ha'>" + laughs + b"]><comps/>"
    )
    assert "entities are not allowed" in reason(GROUP.replace(b">p<", b">&unknown;<"))


def test_depth_has_an_end() -> None:
    assert "more than 32 elements" in reason(b"<comps>" + b"<group>" * 100)
