"""Who is let in: addresses, TLS, users and their rights, limits; and which doors stay shut."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from repowatch.config import (
    AccountConfig,
    Address,
    Config,
    LimitsConfig,
    RepositoryConfig,
    TcpAddress,
    TlsConfig,
    UnixAddress,
    for_directories,
)
from repowatch.config.doors import refuse_open_doors
from repowatch.config.file import ConfigurationError, parse
from repowatch.errors import UsageError

ONE = "repositories:\n  rpm:\n    path: /srv/rpm\n"


@pytest.fixture
def pem(tmp_path: Path) -> str:
    """A file that can be read."""
    (tmp_path / "a.pem").write_text("")
    return str(tmp_path / "a.pem")


def configured(text: str) -> Config:
    return parse(f"{text}\n{ONE}", source="c.yaml")


def report(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, source="c.yaml")
    return str(caught.value).splitlines()


def report_of(setting: str) -> list[str]:
    """The mistakes of a configuration that begins with `setting`."""
    return report(f"{setting}\n{ONE}")


def test_every_key_of_the_doors_is_read(pem: str) -> None:
    text = f"""
listen: [0.0.0.0:443, "http://[::1]:80", unix:/run/repowatch/http.sock]
tls: {{certificate: {pem}, key: {pem}, client_ca: {pem}}}
users: /etc/repowatch/users
groups: {{admins: [anna, ben], nobody: []}}
accounts:
  ci: {{repositories: [rpm], names: ["foo-*.rpm"], delete: no, expires: 2027-01-01}}
  anna: {{}}
auth_over_http: yes
trusted_proxies: [127.0.0.1, 10.0.0.0/8, "::1", unix]
access_log: stderr
audit: /var/log/repowatch/audit
limits:
  {{connections: 10, uploads: 2, head_time: 1s, idle: 1m, least_rate: 2KiB, stop: 5s, reserve: 0}}
repositories:
  rpm:
    path: /srv/rpm
    read: [anna, "@admins"]
    write: ["@admins", ci]
    allow: [10.0.0.0/8, "2001:db8::/32"]
    deny: [10.9.0.1]
"""
    assert parse(text, source="c.yaml") == Config(
        listen=(
            TcpAddress("0.0.0.0", 443),
            TcpAddress("::1", 80, tls=False),
            UnixAddress("/run/repowatch/http.sock"),
        ),
        tls=TlsConfig(certificate=pem, key=pem, client_ca=pem),
        users="/etc/repowatch/users",
        groups={"admins": ("anna", "ben"), "nobody": ()},
        accounts={
            "ci": AccountConfig(
                repositories=("rpm",),
                names=("foo-*.rpm",),
                delete=False,
                expires=datetime(2027, 1, 1, tzinfo=UTC).timestamp(),
            ),
            "anna": AccountConfig(),
        },
        auth_over_http=True,
        trusted_proxies=("127.0.0.1", "10.0.0.0/8", "::1", "unix"),
        access_log="stderr",
        audit="/var/log/repowatch/audit",
        limits=LimitsConfig(
            connections=10, uploads=2, head_time=1.0, idle=60.0, least_rate=2048, stop=5.0, reserve=0
        ),
        repositories=(
            RepositoryConfig(
                name="rpm",
                path="/srv/rpm",
                url="/rpm/",
                read=("anna", "@admins"),
                write=("@admins", "ci"),
                allow=("10.0.0.0/8", "2001:db8::/32"),
                deny=("10.9.0.1",),
            ),
        ),
    )


def test_a_plain_value_stands_for_a_list_of_one() -> None:
    text = """
listen: "[::1]:80"
groups: {admins: anna}
accounts: {ci: {repositories: rpm, names: a-*.rpm}}
trusted_proxies: unix
repositories: {rpm: {path: /srv/rpm, read: anna, write: "@admins", allow: "::1", exclude: "*.drpm"}}
"""
    found = parse(text, source="c.yaml")
    (repository,) = found.repositories
    assert found.listen == (TcpAddress("::1", 80),)
    assert found.groups == {"admins": ("anna",)}
    assert found.accounts["ci"] == AccountConfig(repositories=("rpm",), names=("a-*.rpm",))
    assert found.trusted_proxies == ("unix",)
    assert (repository.read, repository.write, repository.allow) == (("anna",), ("@admins",), ("::1",))
    assert repository.exclude == ("*.drpm",)


def test_nobody_is_another_right_than_none_given() -> None:
    (repository,) = parse(f"{ONE}    read: []\n    write: []\n", source="c.yaml").repositories
    assert (repository.read, repository.write) == ((), ())


def test_mistakes_in_every_part_are_told_at_once(tmp_path: Path) -> None:
    text = f"""
listen:
  - 0.0.0.0:443
  - https://0.0.0.0:443
  - nowhere
  - https://[::1]:0
users: etc/users
groups: {{admin: [anna, "@admins", "a:b"], anyone: [x], "@at": []}}
accounts:
  c:i: {{expires: soon, name: x}}
  ci: {{repositories: [rpm, pm]}}
trusted_proxies: [10.0.0.1/8, proxy]
limits: {{uploads: 0, connection: 1}}
repositories:
  rpm:
    path: {tmp_path}
    read: ["@admins", "@"]
    allow: [unix]
"""
    assert [re.sub("; .*", "", line) for line in report(text)] == [
        "c.yaml:4: `listen`: `0.0.0.0:443` is there already",
        "c.yaml:5: `listen`: `nowhere` is no address to listen on",
        "c.yaml:6: `https://[::1]:0` needs a certificate",
        "c.yaml:7: `users`: `etc/users` is not absolute",
        "c.yaml:8: `groups`: `@admins` can not be a name here: anyone and names that begin with @ or # mean "
        "something else",
        "c.yaml:8: `groups`: `a:b` can not be a name here: it has a colon or a character that is not "
        "printable",
        "c.yaml:8: group `anyone`: `anyone` can not be a name here: anyone and names that begin with @ or # "
        "mean something else",
        "c.yaml:8: group `@at`: `@at` is named without its @ here",
        "c.yaml:10: account `c:i`: `c:i` can not be a name here: it has a colon or a character that is not "
        "printable",
        "c.yaml:10: `expires`: `soon` is no date",
        "c.yaml:10: unknown key `name`",
        "c.yaml:11: there is no repository `pm`",
        "c.yaml:12: `trusted_proxies`: `10.0.0.1/8` has bits beyond its prefix",
        "c.yaml:12: `trusted_proxies`: `proxy` is no address or network",
        "c.yaml:13: `uploads`: `0` is not a number from 1 to 9999999",
        "c.yaml:13: unknown key `connection`",
        "c.yaml:17: `read`: `@` is nobody: it is empty, or has a blank at an end",
        "c.yaml:17: there is no group `@admins`",
        "c.yaml:18: `allow`: `unix` is no address or network",
    ]


def test_a_group_or_a_repository_that_is_missing_is_told_with_the_nearest_one() -> None:
    text = f"accounts: {{ci: {{repositories: [rp]}}}}\ngroups: {{admins: []}}\n{ONE}    write: ['@admin']\n"
    assert report(text) == [
        "c.yaml:1: there is no repository `rp`; did you mean `rpm`?",
        "c.yaml:6: there is no group `@admin`; did you mean `@admins`?",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T18:30:00Z", datetime(2027, 1, 31, 18, 30, tzinfo=UTC)),
        ("2027-01-31 18:30+02:00", datetime(2027, 1, 31, 16, 30, tzinfo=UTC)),
        ("2027-01-31t18:30:10z", datetime(2027, 1, 31, 18, 30, 10, tzinfo=UTC)),
    ],
)
def test_an_account_ends_when_its_day_begins_or_at_its_time(text: str, expected: datetime) -> None:
    found = configured(f"accounts: {{ci: {{expires: '{text}'}}}}")
    assert found.accounts["ci"].expires == expected.timestamp()


@pytest.mark.parametrize(
    "text",
    [
        "2027-01-31T18:30:00",
        "2027-02-30",
        "2027-01-31T25:00Z",
        "20270131",
        "2027-W01-1",
        "0000-01-01",
        "never",
    ],
)
def test_other_times_are_refused(text: str) -> None:
    (line,) = report_of(f"accounts: {{ci: {{expires: '{text}'}}}}")
    assert line.startswith(f"c.yaml:1: `expires`: `{text}` ")


def test_tls_needs_both_of_its_files_and_they_must_be_there(tmp_path: Path, pem: str) -> None:
    assert report_of("tls: {}") == ["c.yaml:1: `tls`: no `certificate` and no `key`; name the file, in PEM"]
    assert report_of(f"tls: {{certificate: {pem}}}") == ["c.yaml:1: `tls`: no `key`; name the file, in PEM"]
    lines = report_of(f"tls: {{certificate: {tmp_path}/none, key: {tmp_path}}}")
    assert lines == [
        f"c.yaml:1: `certificate`: `{tmp_path}/none` can not be read: No such file or directory; "
        "check the path and its permissions",
        f"c.yaml:1: `key`: `{tmp_path}` is a directory; name a file",
    ]


@pytest.mark.parametrize("key", ["users", "audit", "access_log"])
def test_our_own_files_must_not_lie_in_a_repository_by_any_way(tmp_path: Path, key: str) -> None:
    (tmp_path / "rpm" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to("rpm/sub")
    (tmp_path / "rpm" / "away").symlink_to("../elsewhere")
    repositories = f"repositories: {{rpm: {{path: {tmp_path}/rpm}}}}"
    for inside in ("rpm/x", "rpm/sub/../x", "link/x", "rpm/away"):
        (line,) = report(f"{key}: {tmp_path}/{inside}\n{repositories}")
        assert line.startswith("c.yaml:1: ")
        assert f"lies in the repository at `{tmp_path}/rpm/`" in line
    parse(f"{key}: {tmp_path}/rpm-{key}\n{repositories}", source="c.yaml")


def test_the_key_must_not_lie_in_a_repository(tmp_path: Path, pem: str) -> None:
    (line,) = report(
        f"tls: {{certificate: {pem}, key: {pem}}}\nrepositories: {{rpm: {{path: {tmp_path}, settle: 0.1s}}}}"
    )
    assert line.startswith(f"c.yaml:1: `{pem}` lies in the repository at ")


def test_https_needs_a_certificate_wherever_it_is_asked_for(tmp_path: Path, pem: str) -> None:
    assert report_of("listen: https://127.0.0.1:0") == [
        "c.yaml:1: `https://127.0.0.1:0` needs a certificate; configure `tls:`, or write http://"
    ]
    configured(f"listen: https://127.0.0.1:0\ntls: {{certificate: {pem}, key: {pem}}}")
    with pytest.raises(UsageError, match="needs a certificate"):
        refuse_open_doors(for_directories([str(tmp_path)], listen=["https://127.0.0.1:0"]))


def test_a_plain_address_speaks_tls_when_there_is_a_certificate(pem: str) -> None:
    plain, tls = configured(""), configured(f"tls: {{certificate: {pem}, key: {pem}}}")
    assert not plain.speaks_tls(TcpAddress("::1", 0))
    assert tls.speaks_tls(TcpAddress("::1", 0))
    assert tls.speaks_tls(TcpAddress("::1", 0, tls=True))
    assert not tls.speaks_tls(TcpAddress("::1", 0, tls=False))
    assert not tls.speaks_tls(UnixAddress("/run/a"))


def open_doors(config: Config, addresses: list[Address] | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        refuse_open_doors(config, addresses)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize("listen", ["0.0.0.0:80", "'[::]:80'", "[127.0.0.1:80, rpm.example.org:80]"])
def test_strangers_may_upload_only_when_somebody_says_so(listen: str) -> None:
    found = open_doors(configured(f"listen: {listen}"))
    assert re.search(
        r"^listen: anyone who can reach (0\.0\.0\.0|\[::\]|rpm\.example\.org):80 could upload", found
    )
    assert "(--allow-anonymous-upload)" in found
    refuse_open_doors(configured(f"listen: {listen}\nallow_anonymous_upload: true"))


def test_unix_sockets_and_the_loopback_are_open() -> None:
    refuse_open_doors(configured("listen: [unix:/run/a, 127.0.0.1:80, '[::1]:80', localhost:80]"))


def test_client_certificates_are_names_too(pem: str) -> None:
    tls = f"listen: 0.0.0.0:80\ntls: {{certificate: {pem}, key: {pem}"
    assert "no users are configured" in open_doors(configured(f"{tls}}}"))
    refuse_open_doors(configured(f"{tls}, client_ca: {pem}}}"))


def test_a_repository_that_anyone_may_write_needs_a_yes_although_there_are_users(pem: str) -> None:
    text = f"listen: 0.0.0.0:80\ntls: {{certificate: {pem}, key: {pem}}}\nusers: /etc/users\n"
    write = "    write: [ben, anyone]\n"
    assert "`write` of `rpm` names `anyone`" in open_doors(parse(f"{text}{ONE}{write}", source="c.yaml"))
    refuse_open_doors(parse(f"allow_anonymous_upload: on\n{text}{ONE}{write}", source="c.yaml"))
    refuse_open_doors(parse(text + ONE, source="c.yaml"))


def test_what_nobody_may_write_needs_no_yes() -> None:
    refuse_open_doors(parse(f"listen: 0.0.0.0:80\n{ONE}    write: []\n", source="c.yaml"))


def test_passwords_cross_the_network_in_the_clear_only_when_somebody_says_so(pem: str) -> None:
    users = "users: /etc/users\nlisten: "
    tls = f"\ntls: {{certificate: {pem}, key: {pem}}}"
    for plain in (f"{users}0.0.0.0:80", f"{users}[https://0.0.0.0:443, http://0.0.0.0:80]{tls}"):
        assert "passwords could be overheard on their way to 0.0.0.0:80" in open_doors(configured(plain))
        refuse_open_doors(configured(f"{plain}\nauth_over_http: true"))
        refuse_open_doors(configured(f"{plain}\ntrusted_proxies: 10.0.0.1"))
    refuse_open_doors(configured(f"{users}[0.0.0.0:443, http://127.0.0.1:80, unix:/run/a]{tls}"))


def test_sockets_that_were_handed_over_take_the_place_of_listen() -> None:
    refuse_open_doors(configured("listen: 0.0.0.0:80"), [UnixAddress("/run/a")])
    assert "reach 0.0.0.0:80 could upload" in open_doors(configured(""), [TcpAddress("0.0.0.0", 80)])
