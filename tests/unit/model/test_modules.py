"""modules.yaml: what is let through, and the line and reason of what is not."""

from __future__ import annotations

import pytest

from repowatch.errors import BadMetadata
from repowatch.model.modules import check

STREAM = """\
---
document: modulemd
version: 2
data:
  name: foo
  stream: "1.10"
  version: 20261128
  context: 9edba152
  arch: noarch
  summary: Foo
  description: >-
    Foo.
  license:
    module: [MIT]
  profiles:
    default:
      rpms: [foo]
  api:
    rpms: [foo]
  artifacts:
    rpms:
    - foo-0:1.0-1.noarch
...
"""
DEFAULTS = "---\ndocument: modulemd-defaults\nversion: 1\ndata:\n  module: foo\n  stream: 1\n...\n"
OBSOLETES = (
    "---\ndocument: modulemd-obsoletes\nversion: 1\ndata:\n  module: foo\n  stream: 1\n"
    "  modified: 2026-11-28T18:00Z\n  message: gone\n...\n"
)
TRANSLATIONS = (
    "---\ndocument: modulemd-translations\nversion: 1\ndata:\n  module: foo\n  stream: 1\n"
    "  modified: 202611281800\n  translations: {}\n...\n"
)
ALL = STREAM + DEFAULTS + OBSOLETES + TRANSLATIONS


def test_documents_of_each_kind_are_let_through() -> None:
    check(ALL.encode())
    check(STREAM.replace("rpms: [foo]", "rpms: []").replace("version: 2\n", "version: 1\n").encode())


@pytest.mark.parametrize(
    ("wrong", "right", "told"),
    [
        ("modulemd-packager", "modulemd", "line 2: modulemd-packager is what modules are built from"),
        ("module", "modulemd", "line 2: `document` is not one of modulemd, modulemd-defaults"),
        ("version: 3\n", "version: 2\n", "line 3: `version` is not 1 or 2"),
        ("", "  name: foo\n", "line 5: `data` has no `name`"),
        ("", "  summary: Foo\n", "line 5: `data` has no `summary`"),
        ("arch:", "arch: noarch", "line 9: `arch` is not a plain value"),
        ("version: new", "version: 20261128", "line 7: `version` is not a number"),
        ("version: ٢", "version: 20261128", "line 7: `version` is not a number"),
        ("version: 99999999999999999999", "version: 20261128", "line 7: `version` is not a number"),
        ("[]", "[MIT]", "line 14: `module` names no license"),
        (" MIT", "\n    module: [MIT]", "line 13: `license` is not lines of `key: value`"),
        ("foo-1.0-1.noarch", "foo-0:1.0-1.noarch", "line 22: 'foo-1.0-1.noarch' is not NAME-EPOCH:VERSION"),
        ("", "  module: foo\n", "line 28: `data` has no `module`"),
        ("2026-11-28", "2026-11-28T18:00Z", "line 37: `modified` is not a moment like"),
        ("soon", "202611281800", "line 46: `modified` is not a number like"),
        ("*foo", "20261128", "line 7: the alias *foo is not read"),
        ("\tfoo", "Foo.", "line 12: not YAML"),
    ],
)
def test_what_dnf_would_leave_out_is_told_with_its_line(wrong: str, right: str, told: str) -> None:
    assert ALL.count(right) >= 1
    with pytest.raises(BadMetadata) as caught:
        check(ALL.replace(right, wrong, 1).encode())
    assert str(caught.value).startswith(told)


def test_a_file_without_a_document_is_refused() -> None:
    with pytest.raises(BadMetadata, match="line 1: there is no document in it"):
        check(b"# nothing yet\n")
