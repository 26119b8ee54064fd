"""The daemon as systemd runs it. The test plays systemd: it listens to what it is told, and reads the log."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kit import daemon as kit
from tests.kit.daemon import Daemon, repowatch, wait_until
from tests.kit.machine import launched_by
from tests.kit.rpms import make_rpm
from tests.kit.users import basic, write_users

SECRET = "swordfish-of-anna"
WRONG = "guess-of-a-stranger"
WATCHDOG = 2.0  # seconds
QUIET = 4.0  # seconds without a beat, after which systemd would have killed it

# The daemon with a part that hangs as long as there is a file, and is found to hang after a second.
HANGING = (
    "import os, sys, time; from repowatch import daemon, running; from repowatch.repository import updater; "
    "from repowatch.repository.index import Index; from repowatch.web.http.connections import Loop\n"
    "daemon.LOOP_PATIENCE = running.UPDATER_PATIENCE = 1.0; updater.CHECK = 0.2; act = {part}\n"
    "def hanging(self):\n"
    "    while os.path.exists(os.environ['HANG']): time.sleep(0.01)\n"
    "    act(self)\n"
    "{part} = hanging\n"
    "from repowatch.cli import main; sys.exit(main())"
)


class Systemd:
    """The other end of NOTIFY_SOCKET: remembers each message with the moment when it was seen."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(address)
        self._heard: list[tuple[float, str]] = []

    @property
    def heard(self) -> list[str]:
        while True:
            try:
                message = self._socket.recv(8192).decode()
            except BlockingIOError:
                return [message for _, message in self._heard]
            self._heard.append((time.monotonic(), message))

    @property
    def beats(self) -> int:
        return self.heard.count("WATCHDOG=1")

    @property
    def quiet(self) -> float:
        """Seconds since the last beat that was seen."""
        self.heard  # noqa: B018 - takes in what has come
        return time.monotonic() - max(at for at, message in self._heard if message == "WATCHDOG=1")

    @property
    def status(self) -> str:
        told = (each for each in reversed(self.heard) if each.startswith("STATUS="))
        return next(told, "STATUS=")[len("STATUS=") :]

    def is_told(self, pattern: str) -> Callable[[], bool]:
        """Whether the last status has something in it."""
        return lambda: re.search(pattern, self.status) is not None

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    listener = Systemd(f"{tmp_path}/notify")
    monkeypatch.setenv("NOTIFY_SOCKET", f"{tmp_path}/notify")
    monkeypatch.setenv("WATCHDOG_USEC", str(round(WATCHDOG * 1e6)))
    yield listener
    listener.close()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    path = tmp_path / "rpm"
    path.mkdir()
    return path


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The scratch directory of a daemon whose log goes into what it takes for the journal."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "daemon.log").touch()
    status = (scratch / "daemon.log").stat()
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    return scratch


def test_systemd_is_told_of_each_part_of_its_life(systemd: Systemd, tree: Path, tmp_path: Path) -> None:
    configuration = f"repositories: {{rpm: {{path: {tree}}}}}\n"
    with Daemon(scratch=tmp_path / "scratch", configuration=configuration) as daemon:
        wait_until(lambda: "READY=1" in systemd.heard)
        wait_until(systemd.is_told("^1 repository, 0 packages, 0 rejected"))
        assert daemon.put("/rpm/a.rpm", make_rpm(tmp_path, "a")).status == 201
        (tree / "torn.rpm").write_bytes(b"no package")
        wait_until(systemd.is_told("^1 repository, 1 package, 1 rejected; last published rpm [0-9]+ at 20"))
        assert str(daemon.repository("rpm")["revision"]) in systemd.status
        before = len(systemd.heard)
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: "READY=1" in systemd.heard[before:])
        [reload] = [each for each in systemd.heard[before:] if each.startswith("RELOADING")]
        assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=[0-9]+", reload)
        assert systemd.heard.index(reload) < systemd.heard.index("READY=1", before)
        (tmp_path / "scratch" / "repowatch.yaml").write_text("no: good\n")
        before = len(systemd.heard)
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: "READY=1" in systemd.heard[before:])  # the old one is in use
        assert daemon.terminate() == 0
    heard = [each.partition("\n")[0].partition("=")[0] for each in systemd.heard]
    assert heard[0] == "EXTEND_TIMEOUT_USEC"
    assert heard.index("READY") < heard.index("STOPPING") < len(heard) - 1
    assert heard[heard.index("STOPPING") + 1 :] == ["EXTEND_TIMEOUT_USEC"]


@pytest.mark.parametrize(
    ("part", "name"),
    [("Loop._turn", "the loop of the doors"), ("Index.sweep", "the updater of rpm")],
)
def test_beats_end_while_a_part_hangs(
    part: str, name: str, systemd: Systemd, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang = tmp_path / "hang"
    monkeypatch.setenv("HANG", str(hang))
    monkeypatch.setattr(kit, "COMMAND", (sys.executable, "-c", HANGING.format(part=part)))
    with Daemon(tree, scratch=tmp_path / "scratch") as daemon:
        wait_until(lambda: systemd.beats > 2)
        hang.touch()
        wait_until(lambda: systemd.quiet > QUIET, deadline=20)
        assert f"{name} hangs" in daemon.log
        hang.unlink()
        beats = systemd.beats
        wait_until(lambda: systemd.beats > beats)
        assert f"{name} goes on" in daemon.log
        assert daemon.terminate() == 0


def test_beats_go_on_where_nothing_happens(systemd: Systemd, tree: Path, tmp_path: Path) -> None:
    with Daemon(tree, scratch=tmp_path / "scratch"):
        wait_until(lambda: systemd.beats > 0)
        for beats in range(1, 9):
            wait_until(lambda at_least=beats: systemd.beats > at_least, deadline=WATCHDOG)  # type: ignore[misc]


def environments(pid: int) -> list[bytes]:
    """Those of the children of a process, as far as they live."""
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found.append(Path(f"/proc/{child}/environ").read_bytes())
    return found


def is_own(environ: bytes) -> bool:
    return b"PATH=" in environ and b"NOTIFY_SOCKET" not in environ and b"WATCHDOG" not in environ


def test_children_do_not_speak_for_the_daemon(systemd: Systemd, tree: Path, tmp_path: Path) -> None:
    with Daemon(tree, scratch=tmp_path / "scratch") as daemon:
        # One that was only just forked still has the daemon's environment, and none that ends has any.
        wait_until(lambda: environments(daemon.pid) and all(map(is_own, environments(daemon.pid))))
    assert "READY=1" in systemd.heard


def test_a_failed_start_is_told_to_who_asks_for_the_status(
    systemd: Systemd, tree: Path, tmp_path: Path
) -> None:
    with Daemon(tree, scratch=tmp_path / "scratch"):
        assert repowatch("serve", tree, "--listen", "127.0.0.1:0").returncode == 2
    assert any(each.startswith("STATUS=") and str(tree) in each for each in systemd.heard)


@pytest.mark.parametrize("kind", ["repository", "audit", "access_log"])
def test_what_the_unit_may_not_write_is_told_with_the_drop_in(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    closed = tree if kind == "repository" else tmp_path / "logs"
    closed.mkdir(exist_ok=True)
    more = "" if kind == "repository" else f"{kind}: {closed}/it\n"
    (tmp_path / "c.yaml").write_text(f"{more}listen: 127.0.0.1:0\nrepositories: {{rpm: {{path: {tree}}}}}\n")
    sealed = f'mount --bind {closed} {closed} && mount -o remount,bind,ro {closed} && exec "$@"'
    monkeypatch.setenv("INVOCATION_ID", "0123")
    with launched_by("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", sealed, "sh"):
        done = repowatch("serve", "--config", tmp_path / "c.yaml")
    assert done.returncode == 1
    assert f"repowatch: {closed}" in done.stderr
    assert "read-only file system" in done.stderr.lower()
    assert f"[Service]\n    ReadWritePaths={closed}\n" in done.stderr
    assert "systemctl edit repowatch" in done.stderr
    assert "Traceback" not in done.stderr


def test_each_line_in_the_journal_has_its_priority(journal: Path, tree: Path, tmp_path: Path) -> None:
    (tree / "torn\nrpm: revision 7.rpm").write_bytes(b"no package")
    configuration = f"repositories: {{rpm: {{path: {tree}}}}}\n"
    with Daemon(scratch=journal, configuration=configuration) as daemon:
        assert daemon.put("/rpm/a.rpm", make_rpm(tmp_path, "a")).status == 201
        wait_until(lambda: "1 added" in daemon.log)
        wait_until(lambda: "not listed" in daemon.log)
        (journal / "repowatch.yaml").write_text("no: good\nneither: this\n")
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: "`neither`" in daemon.log)
        daemon.terminate()
        lines = daemon.log.splitlines()
    assert all(re.match("<[2-7]>", each) for each in lines), lines
    [rejected] = [each for each in lines if "not listed" in each]
    assert rejected.startswith("<4>rpm: not listed: torn\\nrpm: revision 7.rpm: ")
    assert any(re.match("<6>rpm: revision [0-9]+: 1 packages, 1 added", each) for each in lines)
    assert sum(each.startswith("<3>  ") for each in lines) >= 2


def test_why_a_start_fails_is_an_error_in_the_journal(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "missing"
    script = (
        'import os, sys; status = os.fstat(2); os.environ["JOURNAL_STREAM"] = '
        'f"{status.st_dev}:{status.st_ino}"; from repowatch.cli import main; sys.exit(main())'
    )
    monkeypatch.setattr(kit, "COMMAND", (sys.executable, "-c", script))
    done = repowatch("serve", missing)
    assert done.returncode == 2
    assert done.stderr == f"<3>{missing}: no such directory; make it first\n"


@pytest.mark.parametrize("how", ["option", "key"])
def test_the_log_is_lines_of_json_on_request(how: str, tree: Path, tmp_path: Path) -> None:
    (tree / "torn\n{}.rpm").write_bytes(b"no package")
    configuration = f"repositories: {{rpm: {{path: {tree}}}}}\n"
    option = ("--log-format", "json") if how == "option" else ()
    if how == "key":
        configuration += "log_format: json\n"
    with Daemon(*option, scratch=tmp_path / "scratch", configuration=configuration) as daemon:
        assert daemon.put("/rpm/a.rpm", make_rpm(tmp_path, "a")).status == 201
        wait_until(lambda: "not listed" in daemon.log)
        assert daemon.terminate() == 0
        rows = [json.loads(line) for line in daemon.log.splitlines()]
    assert all({"time", "level", "logger", "message"} <= row.keys() for row in rows)
    [rejected] = [row for row in rows if "not listed" in row["message"]]
    assert (rejected["level"], rejected["repository"]) == ("warning", "rpm")
    assert rejected["location"] == "torn\n{}.rpm"
    assert rejected["reason"] in rejected["message"]
    published = [row for row in rows if "revision" in row]
    assert published[-1].keys() >= {"repository", "packages", "added", "replaced", "removed", "ms"}
    assert sum(row["added"] for row in published) == 1


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_log_has_a_password_or_what_could_be_sent_as_one(form: str, tree: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    write_users(tmp_path / "users", {"anna": SECRET})
    configuration = f"""
users: {tmp_path}/users
access_log: {tmp_path}/access.log
audit: {tmp_path}/audit
log_format: {form}
repositories:
  rpm: {{path: {tree}}}
  private: {{path: {tmp_path}/private, read: [anna]}}
"""
    (tmp_path / "private").mkdir()
    right, wrong = basic("anna", SECRET), basic("anna", WRONG)
    with Daemon("--verbose", scratch=scratch, configuration=configuration) as daemon:
        for fields in (right, wrong, {"Authorization": right["Authorization"] + "%"}):
            for method, path in (("PUT", "/rpm/x"), ("GET", "/private/"), ("PROPFIND", "/private/")):
                daemon.request(method, path, b"x" if method == "PUT" else None, headers=fields)
        host, port = daemon.address
        target = f"http://anna:{SECRET}@{host}:{port}/private/"
        daemon.request("GET", target)
        daemon.get("/rpm/", headers={"Referer": target, "User-Agent": "x"})
        daemon.request("MOVE", "/rpm/x", headers={**right, "Destination": target.replace("private", "rpm")})
        daemon.request("LOCK", "/rpm/x", b"<odd", headers={**right, "If": f"<{target}> (<x>)"})
        (tmp_path / "users").write_text(f"anna:{SECRET}\n")  # no hash: it is refused
        wait_until(
            lambda: daemon.get("/private/", headers=right) and "the users stay as they were" in daemon.log
        )
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: "the configuration is refused" in daemon.log)
        daemon.terminate()
        told = daemon.log + (tmp_path / "access.log").read_text() + (tmp_path / "audit").read_text()
    assert "login failed" in told
    for password in (SECRET, WRONG):
        assert password not in told
        assert base64.b64encode(f"anna:{password}".encode()).decode().rstrip("=") not in told
