"""Signed metadata: dnf with repo_gpgcheck, and zypper with all its checks, while more is published."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Protocol
from urllib.error import HTTPError

import pytest

from tests.clients.conftest import run
from tests.clients.test_nginx import nginx
from tests.clients.test_rsyncd import CONFIGURATION, Master, offered, replaced
from tests.faults.tracing import kill_at, logging_to, points_in
from tests.faults.tracing import run as traced
from tests.kit.daemon import COMMAND, Daemon, repowatch, wait_until
from tests.kit.keyrings import Keyring
from tests.kit.rpms import make_rpm

pytestmark = pytest.mark.client("gpg")

REPOMD = "/rpm/repodata/repomd.xml"
PAIR = (REPOMD, f"{REPOMD}.asc")


@dataclass(frozen=True, slots=True)
class Signer:
    """A daemon that signs what it publishes."""

    daemon: Daemon
    keyring: Keyring
    scratch: Path
    packages: tuple[Path, ...]

    @property
    def root(self) -> Path:
        return self.scratch / "rpm"

    @property
    def revision(self) -> int:
        return int(self.daemon.repository("rpm")["revision"])

    def configure(self, *keys: str) -> str:
        """Write the configuration, and return it. Without keys, nothing is signed."""
        sign = f"sign: {{keys: {json.dumps(keys)}, keyring: {self.keyring.home}}}\n" if keys else ""
        text = (
            f"{sign}trusted_proxies: [127.0.0.1]\n"
            f"repositories:\n  rpm: {{path: {self.root}, settle: 0.05s, deadline: 1s}}\n"
        )
        (self.scratch / "repowatch.yaml").write_text(text)
        return text

    def sign_by(self, *keys: str) -> None:
        """Have the running daemon sign by other keys, and wait until it does."""
        self.configure(*keys)
        self.daemon.signal(signal.SIGHUP)
        wait_until(lambda: self.signers() == list(keys))

    def pair(self) -> tuple[bytes, bytes]:
        """repomd.xml and the signature that the daemon gives to the same client."""
        repomd, signature = (self.daemon.get(path) for path in PAIR)
        return repomd.body, signature.body if signature.status == 200 else b""

    def signers(self) -> list[str]:
        """The keys by which what clients see is signed, each once. Raises AssertionError for a bad one."""
        repomd, signature = self.pair()
        return list(dict.fromkeys(self.keyring.good(repomd, signature))) if signature else []

    def publish_once(self, number: int) -> None:
        """Publish: a package that comes, or goes."""
        package = self.packages[number // 2 % len(self.packages)]
        if number % 2 == 0:
            answer = self.daemon.put(f"/rpm/{package.name}", package)
        else:
            answer = self.daemon.request("DELETE", f"/rpm/{package.name}")
        assert answer.status in (201, 204), answer

    @contextlib.contextmanager
    def publishing(self) -> Iterator[None]:
        """One publication after the other, without pause, for as long as the context lasts."""
        ends, failed = threading.Event(), list[BaseException]()

        def publish() -> None:
            number = 0
            try:
                while not ends.is_set():
                    self.publish_once(number)
                    number += 1
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=publish)
        thread.start()
        try:
            yield
        finally:
            ends.set()
            thread.join()
        assert not failed


@pytest.fixture
def signer(keyring: Keyring, tmp_path: Path) -> Iterator[Signer]:
    """One whose keyring has one key, and signs by it."""
    (tmp_path / "rpm").mkdir()
    (tmp_path / "made").mkdir()
    packages = tuple(make_rpm(tmp_path / "made", f"p{number}") for number in range(2))
    key = keyring.make_key("first <first@example.org>")
    daemon = Daemon(scratch=tmp_path, configuration="")
    signer = Signer(daemon, keyring, tmp_path, packages)
    signer.configure(key)
    with daemon:
        yield signer


class Malice:
    """Lets something be published between any two requests of a client for repomd.xml or its signature.

    `plain`: what lies on the disk, as a server of files gives it. Else what the daemon says to a proxy.
    """

    def __init__(self, signer: Signer, *, plain: bool) -> None:
        self._signer = signer
        self._plain = plain
        self._was_asked = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def do_HEAD(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> Malice:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        if request.path in PAIR:
            if self._was_asked:
                self._let_publish()
            self._was_asked = True
        is_plain = self._plain and request.path in PAIR
        status, content = self._from_disk(request.path) if is_plain else self._from_daemon(request)
        request.send_response(status)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(content)

    def _let_publish(self) -> None:
        """Twice: of the first, the signature may have been there before."""
        for _ in range(2):
            _, before = self._from_disk(REPOMD)
            wait_until(lambda before=before: self._from_disk(REPOMD)[1] != before)  # type: ignore[misc]

    def _from_disk(self, path: str) -> tuple[int, bytes]:
        return 200, (self._signer.root / path.removeprefix("/rpm/")).read_bytes()

    def _from_daemon(self, request: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        asked = urllib.request.Request(
            self._signer.daemon.url.rstrip("/") + request.path,
            headers={"User-Agent": request.headers["User-Agent"], "X-Forwarded-For": "192.0.2.7"},
        )
        try:
            with urllib.request.urlopen(asked, timeout=20) as answer:
                return answer.status, answer.read()
        except HTTPError as error:
            return error.code, error.read()


class Refresh(Protocol):
    """Takes the metadata anew, and has it verified. Raises AssertionError where it is not good."""

    def __call__(self, *, may_import: bool = True) -> None: ...


def repo_file(signer: Signer, url: str) -> str:
    """What the daemon tells clients, with another address."""
    return signer.daemon.get("/rpm.repo").text.replace(signer.daemon.url, url)


def dnf_at(signer: Signer, url: str, scratch: Path) -> Refresh:
    """dnf on a machine that does not exist."""
    (scratch / "repos").mkdir(parents=True)
    (scratch / "repos" / "rpm.repo").write_text(repo_file(signer, url))
    (scratch / "dnf.conf").write_text("[main]\n")

    def refresh(*, may_import: bool = True) -> None:
        run(
            *(
                "dnf",
                "--assumeyes" if may_import else "--assumeno",
                "--releasever=9",
                "--refresh",
                "--setopt=skip_if_unavailable=0",
            ),
            *("--setopt=retries=1", f"--config={scratch}/dnf.conf", f"--installroot={scratch}/root"),
            *(f"--setopt=cachedir={scratch}/cache", f"--setopt=reposdir={scratch}/repos", "makecache"),
        )

    return refresh


def zypper_at(signer: Signer, url: str, scratch: Path) -> Refresh:
    """zypper, likewise."""
    scratch.mkdir()
    (scratch / "rpm.repo").write_text(repo_file(signer, url))
    zypper = ("env", f"ZYPP_LOGFILE={scratch}/log", "zypper", "--root", scratch / "root", "--non-interactive")
    run(*zypper, "addrepo", scratch / "rpm.repo")

    def refresh(*, may_import: bool = True) -> None:
        run(*zypper, *(["--gpg-auto-import-keys"] if may_import else []), "refresh", "--force")

    return refresh


CLIENTS = [
    pytest.param(dnf_at, marks=pytest.mark.client("dnf"), id="dnf"),
    pytest.param(zypper_at, marks=pytest.mark.client("zypper"), id="zypper"),
]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can install into a root of its own")
Client = Callable[[Signer, str, Path], Refresh]


@as_root
@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_gets_a_pair_although_something_is_published_between_its_requests(
    signer: Signer, client: Client, tmp_path: Path
) -> None:
    with signer.publishing(), Malice(signer, plain=True) as guilty, Malice(signer, plain=False) as proxy:
        with pytest.raises(AssertionError, match=r"(?i)signature"):
            client(signer, guilty.url, tmp_path / "guilty")()
        refresh = client(signer, proxy.url, tmp_path / "client")
        for _ in range(3):
            refresh()


@as_root
@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_goes_on_through_a_change_of_keys_while_publications_follow_each_other(
    signer: Signer, client: Client, tmp_path: Path
) -> None:
    [old] = signer.keyring.fingerprints()
    new = signer.keyring.make_key("second <second@example.org>")
    refresh = client(signer, signer.daemon.url, tmp_path / "client")
    with signer.publishing():
        refresh()
        for keys in [(old, new), (new,)]:
            signer.sign_by(*keys)
            for _ in range(2):
                refresh(may_import=old not in keys)
    served = signer.daemon.get(f"{REPOMD}.key").body
    assert served == signer.keyring.gpg("--armor", "--export-options", "export-minimal", "--export", new)
    assert {path.name for path in (signer.root / "repodata").glob("*.key")} == {
        "repomd.xml.key",
        f"{new}.key",
    }


def test_verify_finds_a_signature_that_is_not_of_what_is_published(signer: Signer, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(signer.root, copy, ignore=shutil.ignore_patterns(".repowatch"))
    assert repowatch("verify", copy).returncode == 0
    with open(copy / "repodata" / "repomd.xml", "ab") as file:
        file.write(b"<!-- -->")
    found = repowatch("verify", copy)
    assert (found.returncode, found.stdout) == (
        1,
        "repodata/repomd.xml.asc: it is not a signature of repomd.xml\n",
    )


def test_what_the_daemon_says_of_signing(signer: Signer) -> None:
    [key] = signer.keyring.fingerprints()
    assert signer.signers() == [key]
    told = signer.daemon.repository("rpm")["signing"]
    assert told["keys"] == [{"fingerprint": key, "expires_at": None, "trouble": None}]
    assert told["trouble"] is None
    repo = signer.daemon.get("/rpm.repo").text.splitlines()
    assert {"repo_gpgcheck=1", f"gpgkey={signer.daemon.url}rpm/repodata/repomd.xml.key"} <= set(repo)
    assert key in signer.daemon.get("/-/rpm").text
    signer.configure()
    signer.daemon.signal(signal.SIGHUP)
    wait_until(lambda: signer.daemon.get(f"{REPOMD}.asc").status == 404)
    assert signer.daemon.get(f"{REPOMD}.key").status == 404
    assert signer.daemon.repository("rpm")["signing"] is None
    assert "repo_gpgcheck=0" in signer.daemon.get("/rpm.repo").text


@pytest.mark.parametrize("path", PAIR)
def test_the_pair_is_served_as_any_file_is(signer: Signer, path: str) -> None:
    whole = signer.daemon.get(path)
    assert whole.headers["Cache-Control"] == "no-cache"
    head = signer.daemon.request("HEAD", path)
    assert (head.status, head.body, head.headers["ETag"]) == (200, b"", whole.headers["ETag"])
    known = signer.daemon.get(path, headers={"If-None-Match": whole.headers["ETag"]})
    assert (known.status, known.body) == (304, b"")
    part = signer.daemon.get(path, headers={"Range": "bytes=5-9"})
    assert (part.status, part.body) == (206, whole.body[5:10])


def test_a_key_that_is_gone_is_told_and_the_old_publication_stays_until_it_is_back(signer: Signer) -> None:
    [key] = signer.keyring.fingerprints()
    before, revision = signer.pair(), signer.revision
    backup = signer.keyring.gpg("--passphrase", "", "--export-secret-keys", key)
    signer.keyring.gpg("--yes", "--delete-secret-keys", key)
    refused = signer.daemon.put(f"/rpm/{signer.packages[0].name}", signer.packages[0])
    assert (refused.status, "has no secret part in the keyring" in refused.text) == (503, True)
    well = signer.daemon.get("/healthz")
    assert (well.status, "has no secret part in the keyring" in well.text) == (503, True)
    assert (signer.pair(), signer.revision) == (before, revision)
    assert not (signer.root / signer.packages[0].name).exists()
    signer.keyring.gpg("--import", stdin=backup)
    wait_until(lambda: signer.daemon.get("/healthz").status == 200, 30)
    signer.publish_once(0)
    assert signer.signers() == [key]


def test_a_start_without_its_key_says_so_and_serves_what_there_is(signer: Signer) -> None:
    [key] = signer.keyring.fingerprints()
    before = signer.pair()
    assert signer.daemon.terminate() == 0
    signer.keyring.gpg("--yes", "--delete-secret-keys", key)
    signer.daemon.start()
    assert f"rpm: nothing new can be published: the signing key {key} has no secret part" in signer.daemon.log
    assert signer.pair() == before
    assert signer.daemon.get("/healthz").status == 503


def test_a_restart_signs_nothing_anew_and_leaves_no_agent(signer: Signer) -> None:
    signer.publish_once(0)
    before = signer.pair()
    signer.keyring.end_agent()
    assert signer.daemon.terminate() == 0
    signer.daemon.start()
    assert signer.pair() == before
    signer.publish_once(1)
    assert signer.signers() == signer.keyring.fingerprints()
    assert signer.keyring.has_agent()
    assert signer.daemon.terminate() == 0
    assert not signer.keyring.has_agent()


@pytest.mark.client("strace")
def test_after_a_death_at_any_rename_a_start_makes_a_pair_again(keyring: Keyring, tmp_path: Path) -> None:
    key = keyring.make_key("first <first@example.org>")
    before, clean, log = tmp_path / "before", tmp_path / "clean", tmp_path / "strace.log"
    make_rpm(before, "one")

    def index(tree: Path) -> tuple[str | Path, ...]:
        configuration = tree.with_suffix(".yaml")
        configuration.write_text(
            f"sign: {{keys: {key}, keyring: {keyring.home}}}\nrepositories: {{rpm: {{path: {tree}}}}}\n"
        )
        return (*COMMAND, "index", tree, "--config", configuration)

    def is_pair(tree: Path) -> bool:
        content = [(tree / "repodata" / name).read_bytes() for name in ("repomd.xml", "repomd.xml.asc")]
        try:
            return keyring.good(*content) == [key]
        except AssertionError:
            return False

    run(*index(before))
    make_rpm(before, "two")
    shutil.copytree(before, clean)
    assert traced(logging_to(log, calls="rename"), *index(clean)) == 0
    renames = [line for line in log.read_text().splitlines() if " rename(" in line]
    ours = [
        point
        for line, point in zip(renames, points_in(log), strict=True)
        if re.search(r'(repomd\.xml|repomd\.xml\.asc|cache/signed)"\) ', line)
    ]
    broken = 0
    for number, point in enumerate(ours):
        tree = tmp_path / f"tree{number}"
        shutil.copytree(before, tree)
        assert traced(kill_at(point), *index(tree)) < 0
        broken += not is_pair(tree)
        run(*index(tree))
        assert is_pair(tree), point
    assert (broken, len(ours)) == (1, 3), "between the two renames, which no order of them avoids"


@pytest.mark.client("nginx", "curl")
def test_behind_nginx_the_pair_comes_from_the_daemon_and_from_the_disk_while_it_is_down(
    signer: Signer, tmp_path: Path
) -> None:
    text = (Path(__file__).parents[2] / "conf" / "nginx.conf").read_text()
    commented = re.findall(r"^    #(?:location.*\{|    .*;|\})\n", text, re.MULTILINE)
    changes = {line: line.replace("#", "", 1) for line in commented}
    upstream = signer.daemon.address[1]
    with nginx(tmp_path / "nginx", root=signer.root, upstream=upstream, changes=changes) as front:
        for number in range(3):
            repomd, _ = front.fetch(REPOMD)
            signer.publish_once(number)
            signature, by_nginx = front.fetch(f"{REPOMD}.asc")
            assert not by_nginx
            assert signer.keyring.good(repomd.body, signature.body) == signer.keyring.fingerprints()
        signer.daemon.kill()
        repomd, signature = (front.fetch(path)[0] for path in PAIR)
        assert signer.keyring.good(repomd.body, signature.body) == signer.keyring.fingerprints()
        for answer in (repomd, signature, front.fetch(f"{REPOMD}.key")[0]):
            assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-cache")


def mirror_of_signed(signer: Signer, master: Master, target: Path) -> None:
    """What the configuration of rsync tells mirrors of a signed repository to run."""
    text = CONFIGURATION.read_text()
    usual = "".join(re.findall(r"^#     (.*\n)", text, re.MULTILINE))
    url, fetch, *put = re.findall(r"^#   (\S.*\n)", text, re.MULTILINE)
    changes = {
        "from=rsync://rpm.example.org/rpm": f"from={master.url}",
        "to=/srv/mirror/rpm": f"to={target}",
        'rsync -t "$from/repodata/repomd.xml" "$to/.repomd.xml"\n': url + fetch,
        'mv "$to/.repomd.xml"': "".join(put) + 'mv "$to/.repomd.xml"',
        "https://rpm.example.org/": signer.daemon.url,
    }
    run("sh", "-c", replaced(usual, changes))


@pytest.mark.client("rsync", "curl")
def test_a_mirror_gets_a_pair_and_the_keys_while_publications_follow_each_other(
    signer: Signer, tmp_path: Path
) -> None:
    mirror = tmp_path / "mirror"
    with offered(signer.root, tmp_path) as master, signer.publishing():
        for _ in range(3):
            mirror_of_signed(signer, master, mirror)
            content = [(mirror / "repodata" / name).read_bytes() for name in ("repomd.xml", "repomd.xml.asc")]
            assert signer.keyring.good(*content) == signer.keyring.fingerprints()
    names = {path.name for path in (mirror / "repodata").glob("*.key")}
    assert names == {"repomd.xml.key", *(f"{key}.key" for key in signer.keyring.fingerprints())}
    assert not list(mirror.glob(".repomd*"))
