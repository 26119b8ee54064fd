"""Who signs, as the configuration says: for all repositories, and for each."""

from __future__ import annotations

from pathlib import Path

import pytest

from repowatch.config.file import ConfigurationError, parse
from repowatch.config.settings import SignConfig

KEY, OTHER = "0123456789ABCDEF" * 2 + "01234567", "F" * 64
REPOSITORIES = "repositories:\n  rpm:\n    path: /srv/rpm\n"


def signs(text: str) -> SignConfig | None:
    """Who signs the only repository."""
    (found,) = parse(text, source="c.yaml").repositories
    return found.sign


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, source="c.yaml")
    return str(caught.value).splitlines()


def test_nobody_signs_where_nothing_is_said() -> None:
    assert signs(REPOSITORIES) is None


@pytest.mark.parametrize("before", [True, False])
def test_what_is_said_for_all_holds_for_each(tmp_path: Path, before: bool) -> None:
    sign = f"sign: {{keys: [{KEY}, {OTHER}], keyring: {tmp_path}}}\n"
    text = sign + REPOSITORIES if before else REPOSITORIES + sign
    assert signs(text) == SignConfig(keys=(KEY, OTHER), keyring=str(tmp_path))


def test_a_fingerprint_may_be_written_as_gpg_shows_it(tmp_path: Path) -> None:
    spaced = "0123 4567 89ab cdef 0123  4567 89ab cdef 0123 4567"
    assert signs(f"sign: {{keys: {spaced}, keyring: {tmp_path}}}\n{REPOSITORIES}") == SignConfig(
        keys=(KEY,), keyring=str(tmp_path)
    )


def test_a_repository_may_not_be_signed_or_by_others(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    text = f"sign: {{keys: {KEY}, keyring: {tmp_path}}}\n{REPOSITORIES}    sign: "
    assert signs(f"{text}no\n") is None
    assert signs(f"{text}{{keys: {OTHER}}}\n") == SignConfig(keys=(OTHER,), keyring=str(tmp_path))
    own = SignConfig(keys=(OTHER,), keyring=str(tmp_path / "other"))
    assert signs(f"{text}{{keys: {OTHER}, keyring: {tmp_path}/other}}\n") == own


@pytest.mark.parametrize(
    ("sign", "words"),
    [
        ("{keyring: /}", "c.yaml:1: `sign`: no `keys`; name the fingerprints"),
        (f"{{keys: {KEY}}}", "c.yaml:1: `sign`: no `keyring`; name the fingerprints, and the GNUPGHOME"),
        ("{keys: [], keyring: /}", "c.yaml:1: `keys`: names no key; write its fingerprint"),
        ("{keys: [12345678], keyring: /}", "c.yaml:1: `keys`: `12345678` is no fingerprint; write the 40"),
        (f"{{keys: [{KEY}, {KEY}], keyring: /}}", f"c.yaml:1: `keys`: `{KEY}` is there twice"),
        (f"{{keys: {KEY}, keyring: gnupg}}", "c.yaml:1: `keyring`: `gnupg` is not absolute"),
        (f"{{keys: {KEY}, keyring: /no/such}}", "c.yaml:1: `keyring`: there is no directory `/no/such`"),
        (f"{{keys: {KEY}, keyring: /, by: me}}", "c.yaml:1: unknown key `by`"),
        ("yes", "c.yaml:1: `sign`: here must be lines of `key: value`"),
    ],
)
def test_a_mistake_is_told_with_its_line(sign: str, words: str) -> None:
    assert any(line.startswith(words) for line in mistakes(f"sign: {sign}\n{REPOSITORIES}"))


@pytest.mark.parametrize("sign", ["yes", f"{{keys: {KEY}}}"])
def test_a_repository_that_leaves_something_to_all_needs_it_there(sign: str) -> None:
    [line] = mistakes(f"{REPOSITORIES}    sign: {sign}\n")
    assert line.startswith("c.yaml:4: there is no `sign` for all repositories")


@pytest.mark.parametrize("below", ["", "/gnupg"])
def test_the_keyring_must_not_lie_in_a_repository(tmp_path: Path, below: str) -> None:
    (tmp_path / "gnupg").mkdir()
    text = f"sign: {{keys: {KEY}, keyring: {tmp_path}{below}}}\nrepositories: {{rpm: {{path: {tmp_path}}}}}\n"
    [line] = mistakes(text)
    assert line.startswith(f"c.yaml:1: `{tmp_path}{below}` lies in the repository")
