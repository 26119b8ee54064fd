"""`metadata` in the configuration: which files travel along, and what is told of those that can not."""

from __future__ import annotations

import pytest

from repowatch.config.file import ConfigurationError, parse


def metadata(text: str) -> tuple[tuple[str, str], ...]:
    config = parse(f"repositories:\n  rpm:\n    path: /r\n    metadata: {text}\n", source="c.yaml")
    return config.repositories[0].metadata


def test_types_and_paths_are_read() -> None:
    assert metadata("{productid: meta/productid, appstream: appstream.xml.gz}") == (
        ("productid", "meta/productid"),
        ("appstream", "appstream.xml.gz"),
    )
    assert metadata("{}") == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{group: x}", "records of the type `group` are made by repowatch itself; remove this line"),
        ("{primary_db: x}", "records of the type `primary_db` are made"),
        ("{updateinfo_zck: x}", "records of the type `updateinfo_zck` are made"),
        ("{a/b: x}", "`a/b` can not be the type of a record; write letters"),
        ("{a: /etc/passwd}", "`/etc/passwd` is not a file of the tree"),
        ("{a: ../x}", "`../x` is not a file of the tree"),
        ("{a: .hidden/x}", "`.hidden/x` is not a file of the tree"),
        ("{a: repodata/x}", "`repodata/x` is not a file of the tree"),
        ("{a: comps.xml}", "`comps.xml` is read without being named here; remove this line"),
        ("{a: x.rpm}", "`x.rpm` is read without being named here"),
        ("{a: x, b: x}", "`x` has two types; remove one of the two"),
        ("[a]", "here must be lines of `key: value`"),
        ("{a: [x]}", "here must be one plain value"),
    ],
)
def test_a_mistake_is_told_with_its_line(text: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        metadata(text)
    assert str(caught.value).startswith("c.yaml:4: ")
    assert told in str(caught.value)
