"""What the configuration accepts, what it refuses, and with which words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repowatch import config
from repowatch.config import Config, RepositoryConfig, TcpAddress, UnixAddress
from repowatch.config.doors import refuse_open_doors
from repowatch.config.file import (
    ACCOUNT_KEYS,
    LIMITS_KEYS,
    REPOSITORY_KEYS,
    SERVER_KEYS,
    TLS_KEYS,
    ConfigurationError,
    parse,
)
from repowatch.errors import UsageError

EXAMPLE = Path(__file__).parents[2] / "conf" / "repowatch.yaml"
ONE = "repositories:\n  rpm:\n    path: /srv/rpm\n"


def report(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, source="c.yaml")
    lines = str(caught.value).splitlines()
    assert len(lines) == len(caught.value.mistakes)
    return lines


def report_of_key(setting: str) -> list[str]:
    """The mistakes of a repository that has `setting` on line 4."""
    return report(f"{ONE}    {setting}\n")


def only(repository: str) -> RepositoryConfig:
    (found,) = parse(f"{ONE}    {repository}\n", source="c.yaml").repositories
    return found


def test_a_repository_needs_only_a_path() -> None:
    assert parse(ONE, source="c.yaml") == Config(
        listen=(TcpAddress("127.0.0.1", 8080),),
        public_url=None,
        max_upload=None,
        allow_anonymous_upload=False,
        repositories=(
            RepositoryConfig(
                name="rpm",
                path="/srv/rpm",
                url="/rpm/",
                profile="compatible",
                checksum="sha256",
                changelogs=10,
                settle=0.2,
                deadline=2.0,
                exclude=(),
                replace="allow",
                keep_space=None,
            ),
        ),
    )


def test_every_key_is_read() -> None:
    text = """
listen: "[::1]:0"
public_url: https://rpm.example.org:8443/x/
max_upload: 500MB
allow_anonymous_upload: yes
repositories:
  el9:
    path: /srv//el/./9/
    url: /el/9/
    profile: compatible
    settle: 500ms
    deadline: 1m
    exclude: ["*.drpm", 'debug/*']
    replace: deny
    keep_space: 1.5G
"""
    assert parse(text, source="c.yaml") == Config(
        listen=(TcpAddress("::1", 0),),
        public_url="https://rpm.example.org:8443/x",
        max_upload=500_000_000,
        allow_anonymous_upload=True,
        repositories=(
            RepositoryConfig(
                name="el9",
                path="/srv/el/9",
                url="/el/9/",
                settle=0.5,
                deadline=60.0,
                exclude=("*.drpm", "debug/*"),
                replace="deny",
                keep_space=3 << 29,
            ),
        ),
    )


def test_all_mistakes_are_told_at_once_in_the_order_of_their_lines() -> None:
    text = """
lisen: 0.0.0.0:8080
max_upload: lots
repositories:
  rpm:
    path: relative
    settle: soon
    exclude: [[a], {b: c}]
  .hidden:
    path: /srv/hidden
    replace: maybe
  none: {}
"""
    assert report(text) == [
        "c.yaml:2: unknown key `lisen`; did you mean `listen`?",
        "c.yaml:3: `max_upload`: `lots` is not a size; write it like 2GiB, 500MB or 1048576",
        "c.yaml:6: `path`: `relative` is not absolute; begin it with /",
        "c.yaml:7: `settle`: `soon` is not a duration; write it like 0.2s, 500ms, 2s, 1m, 1h or 2d",
        "c.yaml:8: `exclude`: here must be one plain value, not a list or a mapping; write one",
        "c.yaml:8: `exclude`: here must be one plain value, not a list or a mapping; write one",
        "c.yaml:9: repository `.hidden`: `.hidden` is empty, has a slash or begins with a dot; "
        "choose another name",
        "c.yaml:11: `replace`: `maybe` is not one of allow, deny; write one of them",
        "c.yaml:12: repository `none`: no `path`; name the directory of its packages",
    ]


def test_what_is_kept_of_each_package_can_be_told() -> None:
    text = "repositories:\n  rpm: {path: /srv/a, checksum: sha512, changelogs: %s}\n"
    for written, meant in (("0", 0), ("25", 25), ("all", None)):
        (found,) = parse(text % written, source="c.yaml").repositories
        assert (found.checksum, found.changelogs) == ("sha512", meant)


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("checksum: md5", "`checksum`: `md5` is not one of sha256, sha512; write one of them"),
        ("changelogs: -1", "`changelogs`: `-1` is neither a number nor `all`; write it like 10"),
        ("changelogs: some", "`changelogs`: `some` is neither a number nor `all`; write it like 10"),
    ],
)
def test_a_mistake_in_what_is_kept_of_each_package_is_told(key: str, told: str) -> None:
    assert report_of_key(key) == [f"c.yaml:4: {told}"]


def test_an_unknown_key_unlike_any_other_is_answered_with_the_known_ones() -> None:
    (line,) = report_of_key("zzz: 1")
    assert line.startswith("c.yaml:4: unknown key `zzz`; known here are path, url, profile, ")


def test_a_duplicate_key_is_refused_with_both_lines() -> None:
    assert report_of_key("path: /srv/other") == [
        "c.yaml:4: `path` stands on line 3 already; remove one of the two"
    ]
    assert report(ONE + "  rpm: {path: /srv/b}\n") == [
        "c.yaml:4: `rpm` stands on line 2 already; remove one of the two"
    ]
    assert len(report("repositories: {a: {path: /a, path: /b}}")) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("repositories: {a: {path: /srv/*/*}}", "`name` (`a`) has no `{1}`, which tells one directory from"),
        ('repositories: {"{1}": {path: "/srv/*/*"}}', "`name` (`{1}`) has no `{2}`, which tells one dir"),
        ('repositories: {"{1}": {path: "/srv/*", url: /x/}}', "`url` (`/x/`) has no `{1}`, which tells one"),
        ('repositories: {"{1}{2}": {path: "/srv/*"}}', "`name` has `{2}`, but `path` has 1 *; number them"),
        ('repositories: {"{1}{x}": {path: "/srv/*"}}', "`name` has `{x}`, but `path` has 1 *; number them"),
        ('repositories: {"{1}": {path: /srv/a}}', "`{1}` has { }, but `path` has no *; write it out"),
        ("repositories: {a: {path: /a, url: '/x/{1}/'}}", "`/x/{1}/` has { }, but `path` has no *; write"),
        ('repositories: {"{1}": {path: "/*"}}', "has its first * right below /; write a directory before it"),
        ('repositories: {"{1}": {path: "/srv/**"}}', "`/srv/**` has a **, which finds nothing more than a *"),
        ('repositories: {"{1}@x": {path: "/srv/*"}}', "`x@x` is reserved, as are"),
        ('repositories: {"{1}": {path: "/srv/*", url: "/.{1}/"}}', "has a part that begins with a dot"),
        ('repositories: {a: {path: /a, follow: ["/b/*"]}}', "a pattern with * is not taken here; name one"),
        ("repositories: {a: {path: /a, baseurl: el/$releasever}}", "is not a path below /; write it like"),
        ('repositories: {"{1}": {path: "/a/*", baseurl: "/{2}/"}}', "`baseurl` has `{2}`, but `path` has"),
        (
            'repositories: {"a{1}": {path: "/srv/*"}, "b{1}{2}": {path: "/srv/*/*"}}',
            "`path` of `b{1}{2}` lies inside that of `a{1}`",
        ),
        (
            'repositories: {a: {path: /srv}, "b{1}": {path: "/srv/*"}}',
            "`path` of `b{1}` lies inside that of `a`",
        ),
        (
            'users: /srv/users\nrepositories: {"b{1}": {path: "/srv/*"}}',
            "`/srv/users` lies in the repository at `/srv/`, where anyone could fetch the passwords",
        ),
        (
            'users: /u\naccounts: {ci: {repositories: [9x]}}\nrepositories: {"el{1}": {path: "/srv/*"}}',
            "there is no repository `9x`",
        ),
    ],
)
def test_a_mistake_in_a_pattern_is_told(text: str, words: str) -> None:
    assert any(words in line for line in report(text))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0.2s", 0.2),
        ("500ms", 0.5),
        ("2s", 2),
        ("1m", 60),
        ("1h", 3600),
        ("2d", 172800),
        ("2", 2),
        ("1 s", 1),
    ],
)
def test_durations_are_read_in_every_unit(text: str, seconds: float) -> None:
    assert only(f"{{settle: {text}, deadline: 2d}}"[1:-1].replace(", ", "\n    ")).settle == seconds


@pytest.mark.parametrize(
    "text", ["0", "0s", "-1s", "1w", "1e3", ".inf", "1s 2s", "1:30", "٣s", "400d", "9" * 5000]
)
def test_other_durations_are_refused(text: str) -> None:
    (line,) = report_of_key(f"settle: {text}")
    assert line.startswith("c.yaml:4: `settle`: ")
    assert len(line) < 250


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GiB", 2 << 30),
        ("500MB", 500_000_000),
        ("1G", 1 << 30),
        ("10k", 10240),
        ("1.5KiB", 1536),
        ("42", 42),
    ],
)
def test_sizes_are_read_in_every_unit(text: str, size: int) -> None:
    assert only(f"keep_space: {text}").keep_space == size


@pytest.mark.parametrize("text", ["0", "0.1", "-5", "1Q", "GiB", "1\u212a", "[1]", "~", "1_000"])
def test_other_sizes_are_refused(text: str) -> None:
    assert len(report_of_key(f"keep_space: {text}")) == 1


def test_a_deadline_shorter_than_settle_is_refused() -> None:
    assert report_of_key("deadline: 100ms") == [
        "c.yaml:4: `deadline` (0.1s) is shorter than `settle` (0.2s); make it at least as long"
    ]
    assert report_of_key("settle: 3s")[0].startswith(
        "c.yaml:4: `deadline` (2s) is shorter than `settle` (3s)"
    )


def test_a_settle_that_can_not_be_read_is_not_compared_with_the_deadline() -> None:
    assert len(report_of_key("settle: x\n    deadline: 100ms")) == 1


@pytest.mark.parametrize(
    "name", ["healthz", "readyz", "metrics", '"-"', "rpm@2024", "rpm.repo", '""', "a/b", '"a\\u0007"', ".a"]
)
def test_a_name_that_is_reserved_or_can_not_be_served_is_refused(name: str) -> None:
    (line,) = report(f"repositories:\n  {name}: {{path: /srv/a, url: /a/}}\n")
    assert line.startswith("c.yaml:2: ")


def test_names_that_other_readers_take_for_numbers_and_truth_values_stay_text() -> None:
    text = "repositories: {no: {path: /a}, 010: {path: /b}, 1.10: {path: /c}}"
    assert [repository.name for repository in parse(text, source="c.yaml").repositories] == [
        "no",
        "010",
        "1.10",
    ]


def test_a_name_that_makes_no_url_needs_one() -> None:
    (line,) = report("repositories:\n  my repo: {path: /srv/a}\n")
    assert line.startswith(
        "c.yaml:2: repository `my repo`: `/my repo/` is not a path below /; write it like /rpm/"
    )
    named = parse("repositories: {my repo: {path: /srv/a, url: /a/}}", source="c.yaml")
    assert named.repositories[0].name == "my repo"


@pytest.mark.parametrize(
    "url",
    [
        "rpm",
        "/rpm",
        "rpm/",
        "/",
        "//",
        "/a//b/",
        "/a/../b/",
        "/./",
        "/.git/",
        "/a/.x/",
        "/metrics/",
        "/-/x/",
        "/x.repo/",
        "/a@b/c/",
        "/a?b/",
        "/a%20b/",
        "/a b/",
        "/ä/",
        '"/a\\n/"',
    ],
)
def test_a_url_that_can_not_be_served_is_refused(url: str) -> None:
    (line,) = report_of_key(f"url: {url}")
    assert line.startswith("c.yaml:4: `url`: ")


@pytest.mark.parametrize(
    ("first", "second", "relation"),
    [("/x/", "/x/", "is the same as"), ("/x/", "/x/y/", "lies inside"), ("/x/y/", "/x/", "contains")],
)
def test_urls_that_overlap_are_refused_with_both_names_and_lines(
    first: str, second: str, relation: str
) -> None:
    text = f"repositories:\n a:\n  path: /a\n  url: {first}\n b:\n  path: /b\n  url: {second}\n"
    assert report(text) == [
        f"c.yaml:7: `url` of `b` {relation} that of `a` (line 4); give each repository its own"
    ]


def test_a_url_that_only_begins_alike_is_another() -> None:
    text = "repositories: {a: {path: /srv/x, url: /x/}, b: {path: /srv/xy, url: /xy/}}"
    assert len(parse(text, source="c.yaml").repositories) == 2


def test_a_default_url_that_another_repository_took_is_refused_at_the_name() -> None:
    text = "repositories:\n a:\n  path: /a\n  url: /b/\n b:\n  path: /b\n"
    assert report(text) == [
        "c.yaml:5: `url` of `b` is the same as that of `a` (line 4); give each repository its own"
    ]


def test_paths_that_overlap_behind_a_symbolic_link_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/sub")
    text = f"repositories:\n a:\n  path: {tmp_path}/real\n b:\n  path: {tmp_path}/link\n  settle: x\n"
    assert report(text) == [
        "c.yaml:5: `path` of `b` lies inside that of `a` (line 3); give each repository its own",
        "c.yaml:6: `settle`: `x` is not a duration; write it like 0.2s, 500ms, 2s, 1m, 1h or 2d",
    ]


def test_a_path_may_come_late_but_can_not_be_a_file(tmp_path: Path) -> None:
    missing = tmp_path / "rpm"
    text = f"repositories: {{rpm: {{path: {missing}}}}}"
    assert parse(text, source="c.yaml").repositories[0].path == str(missing)
    missing.write_text("not a directory")
    (line,) = report(text)
    assert "is not a directory" in line


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x",
        "x.example.org",
        "https://",
        "https://x/?a",
        "https://x/#a",
        "https://u@x/",
        "https://x:65536",
        "https://x y",
        '"https://x\\n"',
        "https://x/\\\\",
        "[https://x]",
    ],
)
def test_a_public_url_that_is_not_plain_is_refused(url: str) -> None:
    (line,) = report(f"public_url: {url}\n{ONE}")
    assert line.startswith("c.yaml:1: `public_url`: ")


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "---\n", "~", "\ufeff", "repositories:\n", "repositories: []"]
)
def test_a_file_without_repositories_says_so(text: str) -> None:
    (line,) = report(text)
    assert line.startswith("c.yaml:1: ")
    assert line.endswith("no repositories; name at least one below `repositories:`, with its `path:`")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a\n", "c.yaml:1: here must be lines of `key: value`; see the example"),
        ("text\n", "c.yaml:1: here must be lines of `key: value`; see the example"),
        ("public_url: {}\n" + ONE, "c.yaml:1: `public_url`: here must be one plain value, "
         "not a list or a mapping; write one"),
        ("repositories: [a]", "c.yaml:1: `repositories`: here must be lines of `key: value`; "
         "see the example"),
        ("repositories:\n  a: /srv/a", "c.yaml:2: `a`: here must be lines of `key: value`; see the example"),
        (ONE + "[a, b]: c\n", "c.yaml:4: here must be one plain value, not a list or a mapping; write one"),
        (ONE + "listen:\n", "c.yaml:4: `listen`: has no value; give it one, or remove the line"),
        (ONE + "listen: !env X\n", "c.yaml:4: `listen`: the alias or tag `!env` is not read here; "
         "write the value out"),
        (ONE + "allow_anonymous_upload: 1\n", "c.yaml:4: `allow_anonymous_upload`: `1` is not one of "
         "true, yes, on, false, no, off; write one of them"),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_refused_where_it_stands(text: str, expected: str) -> None:
    assert report(text) == [expected]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("repositories:\n\trpm: 1\n", 2, "indent with spaces, not tabs"),
        ("a: [1,\nb: 2\n", 3, "while parsing a flow sequence from line 1 on"),
        ("a: 'x\n", 2, "this is not YAML"),
        ("a: 1\n b: 2\n", 2, "this is not YAML"),
        ("a: 1\n---\nb: 1\n", 2, "this is not YAML"),
        ("a: 1\nb: \0\n", 2, "the character U+0000 is not allowed"),
        ("a: 1\nb: \x1b[0m\n", 2, "the character U+001B is not allowed"),
        ('a: 1\nb: "\\U00FFFFFF"\n', 2, "can not be read as YAML"),
        ('a: 1\nb: "\\UFFFFFFFF"\n', 2, "can not be read as YAML"),
        ("a: 1\nb: " + "[" * 5000, 2, "can not be read as YAML"),
        ("%YAML " + "9" * 5000 + ".1\n--- a", 1, "can not be read as YAML"),
    ],
)
def test_what_is_not_yaml_is_refused_with_its_line(text: str, line: int, words: str) -> None:
    (only_line,) = report(text)
    assert only_line.startswith(f"c.yaml:{line}: ")
    assert words in only_line


def test_aliases_are_refused_before_they_can_multiply() -> None:
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 30)]
    lines = report("\n".join(["l0: &l0 [x]", *levels, "listen: *l29", "repositories: {a: *l29}"]))
    assert len(lines) == 32
    assert lines[-2:] == [
        "c.yaml:31: `listen`: the alias or tag `*l29` is not read here; write the value out",
        "c.yaml:32: `a`: the alias or tag `*l29` is not read here; write the value out",
    ]


def test_an_alias_that_holds_itself_a_merge_and_an_alias_as_key_are_refused() -> None:
    assert report("&a\nrepositories: *a") == [
        "c.yaml:2: `repositories`: the alias or tag `*a` is not read here; write the value out"
    ]
    assert "unknown key `<<`" in report("repositories: {a: {<<: {path: /a}, path: /a}}")[0]
    assert len(report(ONE + "? &x listen\n: localhost:0\n? *x\n: localhost:0\n")) == 1


yaml_like = st.lists(
    st.sampled_from([*SERVER_KEYS, *REPOSITORY_KEYS, *TLS_KEYS, *ACCOUNT_KEYS, *LIMITS_KEYS])
    | st.sampled_from(
        [": ", "\n", "  ", "- ", "[", "]", "{", "}", "&a ", "*a", "!t ", '"', "'", "| ", "<<", "#"]
    )
    | st.sampled_from(
        ["\t", "%YAML 1.1\n", "---\n", "? ", "/srv/a", "2s", "1GiB", "rpm", ",", "\\U", "@a", "::1"]
    )
    | st.text(max_size=3),
    max_size=25,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(yaml_like)
def test_whatever_the_text_is_the_answer_is_a_config_or_a_report(text: str) -> None:
    try:
        assert parse(text, source="c.yaml").repositories
    except ConfigurationError as error:
        assert error.mistakes
        last = len(re.split("\r\n|[\n\r\x85\u2028\u2029]", text)) + 1
        for line in str(error).split("\n"):
            assert re.fullmatch(r"c\.yaml:[1-9][0-9]*: .+", line)
            assert int(line.split(":")[1]) <= last


def test_a_file_that_is_missing_or_a_directory_is_told_in_plain_words(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.yaml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigurationError) as caught:
            config.load(path)
        assert str(caught.value) == f"{path}: can not be read: {reason}; check the path and its permissions"
        assert caught.value.exit_code == 2


def test_bytes_that_are_not_utf_8_are_refused_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(ONE.encode() + b"# caf\xe9\n")
    with pytest.raises(ConfigurationError) as caught:
        config.load(path)
    assert str(caught.value) == f"{path}:4: this is not UTF-8; save it as UTF-8"


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + ONE.encode())
    assert config.load(path) == parse(ONE, source="c.yaml")


def test_the_example_is_right_and_opens_no_door() -> None:
    refuse_open_doors(config.load(EXAMPLE))


def test_the_example_shows_every_key_and_what_it_shows_is_right(tmp_path: Path) -> None:
    text = re.sub(r"^( *)#(\w+:)", r"\1\2", EXAMPLE.read_text(), flags=re.MULTILINE)
    for name in ("fullchain.pem", "privkey.pem", "clients.pem"):
        (tmp_path / name).write_text("")
    (tmp_path / "RPM-GPG-KEY-example").write_text(KEY)
    for directory in ("/etc/repowatch/tls", "/etc/pki/rpm-gpg", "/var/lib/repowatch/gnupg"):
        text = text.replace(directory, str(tmp_path))
    parse(text, source=str(EXAMPLE))
    shown = set(re.findall(r"^ *(\w+):", text, flags=re.MULTILINE))
    assert {*SERVER_KEYS, *REPOSITORY_KEYS, *TLS_KEYS, *ACCOUNT_KEYS, *LIMITS_KEYS} <= shown


def test_the_example_shows_the_defaults_of_the_limits() -> None:
    assert config.load(EXAMPLE).limits == config.LimitsConfig()


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("0.0.0.0:8080", "0.0.0.0", 8080),
        ("[::1]:8080", "::1", 8080),
        ("localhost:0", "localhost", 0),
        ("[fe80::1%eth0]:80", "fe80::1%eth0", 80),
        ("rpm.example.org:65535", "rpm.example.org", 65535),
    ],
)
def test_an_address_is_read_and_written_alike(text: str, host: str, port: int) -> None:
    assert config.parse_address(text) == TcpAddress(host, port)
    assert config.parse_address(f"http://{text}") == TcpAddress(host, port, tls=False)
    assert config.parse_address(f"https://{text}") == TcpAddress(host, port, tls=True)
    assert str(TcpAddress(host, port)) == str(TcpAddress(host, port, tls=True)) == text


def test_a_unix_socket_is_an_address() -> None:
    address = config.parse_address("unix:/run//repowatch/./http.sock")
    assert address == UnixAddress("/run/repowatch/http.sock")
    assert str(address) == "unix:/run/repowatch/http.sock"
    assert address.is_loopback


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8080",
        ":8080",
        "localhost",
        "localhost:",
        "localhost:65536",
        "::1:80",
        "[::1]",
        "[::g]:80",
        "1.2.3:80",
        "256.1.1.1:80",
        "a b:80",
        "localhost:80\n",
        "localhost:٨٠",
        "http://localhost",
        "ftp://localhost:80",
        "https://localhost:80/",
        "unix:",
        "unix:http.sock",
        "unix:/a\nb",
        f"unix:/{'x' * 107}",
        "[1.2.3.4:80",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="; "):
        config.parse_address(text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("LOCALHOST", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example.org", False),
    ],
)
def test_only_the_loopback_is_the_loopback(host: str, loopback: bool) -> None:
    assert TcpAddress(host, 80).is_loopback is loopback


def test_directories_become_repositories_of_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rpm").mkdir()
    (tmp_path / "link").symlink_to("rpm")
    monkeypatch.chdir(tmp_path / "rpm")
    expected = (RepositoryConfig(name="rpm", path=str((tmp_path / "rpm").resolve()), url="/rpm/"),)
    for directory in (".", "../rpm/", "../link", str(tmp_path / "rpm")):
        assert config.for_directories([directory]) == Config(repositories=expected)


def test_the_command_line_gives_the_address_and_the_permission(tmp_path: Path) -> None:
    listen = ["0.0.0.0:0", "unix:/run/a"]
    read = config.for_directories([str(tmp_path)], listen=listen, allow_anonymous_upload=True)
    assert read.listen == (TcpAddress("0.0.0.0", 0), UnixAddress("/run/a"))
    assert read.allow_anonymous_upload


def test_all_mistakes_of_the_directories_are_told_at_once(tmp_path: Path) -> None:
    for name in ("a/rpm/x", "b/rpm", "metrics", ".hid", "my repo"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file").write_text("")
    root = tmp_path.resolve()
    names = ["a/rpm", "b/rpm", "a/rpm/x", "metrics", ".hid", "my repo", "file"]
    with pytest.raises(UsageError) as caught:
        config.for_directories([*(str(root / name) for name in names), ""], listen=["nowhere"])
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0].strip("`").removeprefix(f"{root}/") for line in lines] == [
        "--listen",
        *("metrics", ".hid", "my repo", "file", ""),
        *("a/rpm/x", "b/rpm"),
    ]
    assert f"its path `{root}/a/rpm/x` lies inside that of `{root}/a/rpm`; " in lines[-2]
    assert f"its url `/rpm/` is the same as that of `{root}/a/rpm`; " in lines[-1]


def test_no_directory_at_all_is_refused() -> None:
    with pytest.raises(UsageError, match="no directory to serve"):
        config.for_directories([])


KEY = """\
-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEXgvdgBYJKwYBBAHaRw8BAQdAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
AAAAAAA=
-----END PGP PUBLIC KEY BLOCK-----
"""


def test_packages_may_be_any_signed_or_signed_by_keys_in_files(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(KEY)

    assert only("packages: any").packages == "any"
    assert only("packages: signed").packages == "signed"
    assert only(f"packages: {{signed_by: {key}}}").packages == (str(key),)
    assert only(f"packages: {{signed_by: [{key}, {key}]}}").packages == (str(key), str(key))


@pytest.mark.parametrize(
    ("setting", "mistake"),
    [
        ("packages: some", "`some` is not one of any, signed"),
        ("packages: {signed: [/x]}", "unknown key `signed`; did you mean `signed_by`?"),
        ("packages: {}", "says nothing; write `any`, `signed`, or {signed_by: [FILE]}"),
        ("packages: {signed_by: []}", "names no key; name a file, or write `packages: signed`"),
        ("packages: {signed_by: [/no/such]}", "`/no/such` can not be read: No such file or directory"),
        ("packages: {signed_by: [/etc/hostname]}", "`/etc/hostname` has no OpenPGP key"),
        ("packages: {signed_by: [key]}", "`key` is not absolute"),
        ("same_nevra: newest", "`newest` is not one of keep, newest_build"),
    ],
)
def test_a_mistake_about_packages_says_what_to_do(setting: str, mistake: str) -> None:
    [line] = report_of_key(setting)
    assert line.startswith("c.yaml:4: ")
    assert mistake in line
