"""Machines that are booted by a systemd of their own, from a disk that can lose its power."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.kit.daemon import wait_until
from tests.kit.loopfs import Disk, mounted
from tests.kit.machine import stopped

BOOT = 60.0  # seconds
ADDRESS = "192.0.2.10"  # of a machine on its own wire (RFC 5737 section 3)

# The machine's only interface is the loopback, with an address that it does not take for the loopback's.
_WIRE = f"""\
[Unit]
DefaultDependencies=no
Before=network.target network-online.target

[Service]
Type=oneshot
ExecStart=ip link set lo up
ExecStart=ip address add {ADDRESS}/32 dev lo
RemainAfterExit=yes

[Install]
WantedBy=network-online.target sysinit.target
"""


def run(*command: str | Path, stdin: str = "", check: bool = True, timeout: float = 120.0) -> str:
    """What a command printed, errors too. Raises AssertionError with it when it failed."""
    done = subprocess.run(
        list(map(str, command)),
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert done.returncode == 0 or not check, f"{command}: exit code {done.returncode}:\n{done.stdout}"
    return done.stdout


def make_disk(root: Path, image: Path, *, megabytes: int = 1536) -> None:
    """Write an ext4 with what lies in `root`, and the wire."""
    units = root / "etc/systemd/system"
    (units / "wire.service").write_text(_WIRE)
    wanted = units / "sysinit.target.wants"
    wanted.mkdir(exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (wanted / "wire.service").symlink_to("/etc/systemd/system/wire.service")
    with open(image, "wb") as file:
        file.truncate(megabytes << 20)
    run("mkfs.ext4", "-q", "-F", "-m", "0", "-d", root, image)


@dataclass(frozen=True, slots=True)
class Machine:
    """A booted machine."""

    disk: Disk
    leader: int  # its PID 1 as this machine knows it
    name: str

    @property
    def root(self) -> Path:
        """Its files, as this machine sees them."""
        return self.disk.root

    def command(self, *command: str | Path) -> list[str]:
        """A command for its root."""
        path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
        within = ("nsenter", "--target", str(self.leader), "--all")
        return [*within, "env", "-i", "--chdir=/", path, "HOME=/root", "LANG=C.UTF-8", *map(str, command)]

    def run(self, *command: str | Path, stdin: str = "", check: bool = True) -> str:
        """What a command printed that its root ran. Raises AssertionError when it failed."""
        return run(*self.command(*command), stdin=stdin, check=check)

    def on_its_wire(self, *command: str | Path, stdin: str = "", check: bool = True) -> str:
        """What a command printed that ran elsewhere, and reaches the machine by network alone."""
        within = ("nsenter", "--target", str(self.leader), "--net")
        return run(*within, *command, stdin=stdin, check=check)

    def show(self, prop: str, unit: str = "repowatch") -> str:
        """A property of a unit, as `systemctl show` has it."""
        return self.run("systemctl", "show", "--value", f"--property={prop}", unit).strip()

    def journal(self, unit: str = "repowatch") -> str:
        """What it logged."""
        return self.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}")

    def cut_power(self, image: Path) -> None:
        """Write to `image` what its disk would hold if its power failed now; it goes on afterwards."""
        members = {int(pid) for group in _groups(self.name) for pid in _members(group)}
        with stopped(*members):
            self.disk.cut_power(image)


@contextlib.contextmanager
def booted(image: Path, directory: Path, *, name: str) -> Iterator[Machine]:
    """A machine that boots from `image`; its power is off at the end. `directory` is for its console."""
    with mounted(image, directory / "root") as disk, open(directory / "console", "wb") as console:
        for group in _groups(name):
            group.mkdir(exist_ok=True)
        joining = "; ".join(f"echo $$ >{group}/cgroup.procs" for group in _groups(name))
        process = subprocess.Popen(
            [
                *("sh", "-c", f'{joining}; exec "$@"', "sh", "systemd-nspawn", "--quiet", "--boot"),
                *(f"--directory={disk.root}", f"--machine={name}", "--register=no", "--keep-unit"),
                *("--link-journal=no", "--private-network", "--console=pipe", "--resolv-conf=off"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
        )
        try:
            yield _when_up(process, disk, directory / "console", name)
        finally:
            for pid in _children(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.kill()
            process.wait()
            wait_until(lambda: all(_removed(group) for group in _groups(name)))


def _when_up(process: subprocess.Popen[bytes], disk: Disk, console: Path, name: str) -> Machine:
    def is_up() -> bool:
        assert process.poll() is None, console.read_text(errors="replace")
        leaders = _children(process.pid)
        if not leaders or not os.path.exists(f"/proc/{leaders[0]}/root/run/dbus/system_bus_socket"):
            return False
        machine = Machine(disk, leaders[0], name)
        state = machine.run("systemctl", "is-system-running", check=False).strip()
        return state in ("running", "degraded")

    wait_until(is_up, BOOT)
    return Machine(disk, _children(process.pid)[0], name)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def _groups(name: str) -> list[Path]:
    """A control group in each hierarchy of systemd; two machines in one would be in each other's way."""
    top = Path("/sys/fs/cgroup")
    if (top / "cgroup.procs").exists():
        return [top / f"test-{name}"]
    return [top / each / f"test-{name}" for each in ("systemd", "unified") if (top / each).is_dir()]


def _members(group: Path) -> Iterator[str]:
    for path in group.rglob("cgroup.procs"):
        yield from path.read_text().split()


def _removed(group: Path) -> bool:
    for path in sorted(group.rglob("*/"), reverse=True):
        if path.is_dir():
            with contextlib.suppress(OSError):
                path.rmdir()
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()
