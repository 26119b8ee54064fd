"""What people call packages: which are meant, which are the newest, and what is nearest."""

from __future__ import annotations

import pytest

from repowatch.model.called import matcher, nearest, newest
from repowatch.model.package import Entry, Nevra, Stamp


def entry(name: str, evr: str = "0:1.0-1", arch: str = "noarch", *, directory: str = "") -> Entry:
    epoch, _, rest = evr.partition(":")
    version, _, release = rest.partition("-")
    location = f"{directory}{name}-{version}-{release}.{arch}.rpm"
    return Entry(location, "0" * 64, Nevra(name, epoch, version, release, arch), Stamp(1, 1, 1, 1))


@pytest.mark.parametrize(
    "asked",
    [
        "foo",
        "foo.noarch",
        "foo-1.0-1",
        "foo-1.0-1.noarch",
        "foo-0:1.0-1.noarch",
        "foo-1.0-1.noarch.rpm",
        "sub/foo-1.0-1.noarch.rpm",
        "f*",
        "sub/*",
    ],
)
def test_a_package_is_meant_by_each_of_its_names(asked: str) -> None:
    is_meant = matcher(asked)
    assert is_meant(entry("foo", directory="sub/"))
    assert not is_meant(entry("bar"))


def test_the_newest_is_so_in_the_order_of_rpm_for_each_architecture() -> None:
    old = [entry("foo", evr) for evr in ("0:9.0-1", "1:1.0~rc1-1", "1:1.0-1", "1:1.0^git-1")]
    other = entry("foo", "0:1.0-1", "x86_64")
    copies = [entry("foo", "1:1.1-1"), entry("foo", "1:1.1-1", directory="copy/")]
    assert newest([*old, other]) == [old[-1], other]
    assert newest([*copies, *old]) == copies


def test_what_is_called_nearly_so_is_told() -> None:
    entries = [entry("kernel"), entry("kernel-core"), entry("zsh", "0:5.9-1")]
    assert nearest("kernle", entries)[0] == "kernel"
    assert nearest("zsh-5.8-1.noarch", entries) == ["zsh-5.9-1.noarch"]
    assert nearest("nothing", entries) == []
