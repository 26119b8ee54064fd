"""What docs/operating.md and the snippets for clients tell people to run, run as it stands there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.clients.conftest import run
from tests.clients.test_dnf import Dnf
from tests.clients.test_nginx import accepts, free_port, replaced
from tests.kit import pages
from tests.kit.daemon import Daemon, repowatch, wait_until
from tests.kit.keyrings import Keyring
from tests.kit.loopfs import fill, memory_disk, require_mounts
from tests.kit.metadata import locations
from tests.kit.oracle import createrepo
from tests.kit.rpms import make_rpm, truncate
from tests.kit.views import Crowd, from_disk, over_http, read_view

PROJECT = pages.PROJECT
PAGE = pages.PAGES["docs/operating.md"].read_text()
MODULES = Path("/usr/lib/apache2/modules")
TREE = "/var/www/repos/rpm-repo"
HELLO = "hello-1.0-1.noarch.rpm"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can install into a root of its own")

APACHE = """
ServerName localhost
ServerRoot {scratch}
DefaultRuntimeDir {scratch}
PidFile {scratch}/pid
Listen 127.0.0.1:{port}
User www-data
Group www-data
ErrorLog {scratch}/error.log
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule authz_host_module {modules}/mod_authz_host.so
LoadModule alias_module {modules}/mod_alias.so
LoadModule headers_module {modules}/mod_headers.so
LoadModule proxy_module {modules}/mod_proxy.so
LoadModule proxy_http_module {modules}/mod_proxy_http.so
"""

FILES = """
Alias /repos/el9/ {tree}/
<Directory {tree}>
    Require all granted
</Directory>
"""


def blocks(heading: str) -> list[str]:
    """What is indented below a heading of the page, in its order."""
    return pages.blocks(pages.section(PAGE, heading))


def shell(commands: str, changes: dict[str, str]) -> str:
    """Run commands of the page with other paths and hosts."""
    return run("bash", "-ec", replaced(commands, changes))


def revision(tree: Path) -> int:
    return read_view(from_disk(tree)).revision


def newest(tree: Path) -> int:
    """The timestamp that yum compares: the highest in repomd.xml (yum/repoMDObject.py)."""
    text = (tree / "repodata" / "repomd.xml").read_text()
    return max(map(int, re.findall(r"<timestamp>(\d+)<", text)))


def wait_for_a_later_second(than: int) -> None:
    """Revisions and timestamps are seconds."""
    wait_until(lambda: time.time() >= than + 1)


# -- taking over a directory -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Apache:
    """Debian's Apache with a configuration of its own."""

    scratch: Path
    port: int

    @property
    def url(self) -> str:
        """The baseurl of its clients."""
        return f"http://127.0.0.1:{self.port}/repos/el9/"

    def configure(self, served: str) -> None:
        common = APACHE.format(scratch=self.scratch, port=self.port, modules=MODULES)
        (self.scratch / "apache.conf").write_text(common + served)

    def reload(self) -> None:
        """What `apachectl configtest && apachectl graceful` does."""
        for arguments in (("-t",), ("-k", "graceful")):
            run("apache2", "-f", self.scratch / "apache.conf", *arguments)


@contextlib.contextmanager
def apache(scratch: Path, tree: Path) -> Iterator[Apache]:
    """One that serves the files of a tree, until the context ends."""
    scratch.mkdir()
    server = Apache(scratch, free_port())
    server.configure(FILES.format(tree=tree))
    process = subprocess.Popen(["apache2", "-f", scratch / "apache.conf", "-DFOREGROUND"])
    try:
        wait_until(lambda: accepts(server.port) or process.poll() is not None)
        yield server
    finally:
        process.terminate()
        process.wait(20)
        print((scratch / "error.log").read_text(), file=sys.stderr)


@pytest.fixture
def tree() -> Iterator[Path]:
    """A directory that createrepo_c has indexed, as it does by default.

    It is not below pytest's, which only root may read: Apache's workers are not root.
    """
    with tempfile.TemporaryDirectory(prefix="el9-") as scratch:
        os.chmod(scratch, 0o755)
        tree = Path(scratch, "el9")
        for name in ("hello", "other"):
            make_rpm(tree, name)
        createrepo(tree)
        yield tree


@pytest.fixture
def old(tree: Path, tmp_path: Path) -> Iterator[Apache]:
    """The Apache that serves it."""
    with apache(tmp_path / "apache", tree) as server:
        yield server


def client(scratch: Path, url: str) -> Dnf:
    scratch.mkdir()
    (scratch / "dnf.conf").write_text("[main]\n")
    return Dnf(scratch, ("--setopt=reposdir=/nonexistent", f"--repofrompath=rpm,{url}"))


def upload(package: Path, url: str) -> str:
    """The status of the answer."""
    return run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-T", package, url)


def from_cache(dnf: Dnf, *arguments: str) -> str:
    """Run dnf as people do: with the metadata that it has, until they expire."""
    options = (f"--config={dnf.scratch}/dnf.conf", f"--setopt=cachedir={dnf.scratch}/cache", *dnf.repository)
    where = ("--releasever=9", f"--installroot={dnf.root}")
    return run("dnf", "--assumeyes", "--nogpgcheck", *where, *options, *arguments)


def successor(scratch: Path, tree: Path, port: int) -> Daemon:
    """The daemon that is configured as the page says."""
    [configuration, *_] = blocks("Taking over a directory")
    changes = {
        "127.0.0.1:8080": "127.0.0.1:0",
        "http://rpm.example.org": f"http://127.0.0.1:{port}",
        "/var/www/html/repos/el9": str(tree),
    }
    return Daemon(scratch=scratch, configuration=replaced(configuration, changes))


@needs_root
@pytest.mark.client("apache2")
@pytest.mark.client("dnf", "curl")
def test_clients_do_not_notice_that_a_directory_is_taken_over(
    old: Apache, tree: Path, tmp_path: Path
) -> None:
    _, rights, status, proxy = blocks("Taking over a directory")
    dnf = client(tmp_path / "client", old.url)
    dnf("makecache")
    before, seen = revision(tree), newest(tree)
    wait_for_a_later_second(max(before, seen))
    with contextlib.ExitStack() as after, Crowd(over_http(old.url)) as crowd:
        shell(rights, {"repowatch:": "root:", "/var/www/html/repos/el9": str(tree)})
        daemon = after.enter_context(successor(tmp_path / "daemon", tree, old.port))
        wait_until(lambda: daemon.repository("el9")["unchecked"] == 0)
        assert revision(tree) > before
        assert newest(tree) > seen
        assert status.strip() == "repowatch status"
        assert repowatch("status", "--url", daemon.url).returncode == 0
        dnf("install", "hello")
        make_rpm(tree, "third")
        wait_until(lambda: len(read_view(from_disk(tree)).packages) == 3)
        assert "third-1.0-1.noarch" in dnf.available(), "Apache serves what repowatch made"

        old.configure(replaced(proxy, {"http://127.0.0.1:8080/": daemon.url}))
        old.reload()
        wait_until(lambda: "Server: repowatch" in run("curl", "-sI", old.url))
        dnf("install", "other")
        assert upload(tree / HELLO, old.url) == "403"
        writers = {"http://127.0.0.1:8080/": daemon.url, "192.0.2.0/24": "127.0.0.1"}
        old.configure(replaced(proxy, writers))
        old.reload()
        wait_until(lambda: upload(make_rpm(tmp_path, "uploaded"), old.url) == "201")
        make_rpm(tree, "fourth")
        wait_until(lambda: len(read_view(from_disk(tree)).packages) == 5)
        assert "fourth-1.0-1.noarch" in dnf.available()
        views = crowd.views
        wait_until(lambda: crowd.views > views + 20)
    assert (crowd.broken, crowd.absent) == ([], 0)


@needs_root
@pytest.mark.client("apache2")
@pytest.mark.client("dnf")
def test_a_client_with_a_warm_cache_goes_on_when_the_address_changes_hands(
    tree: Path, tmp_path: Path
) -> None:
    with apache(tmp_path / "apache", tree) as server:
        dnf = client(tmp_path / "client", server.url)
        dnf("makecache")
    configuration = f"repositories: {{el9: {{path: {tree}, url: /repos/el9/}}}}"
    address = f"127.0.0.1:{server.port}"
    with Daemon("--listen", address, scratch=tmp_path / "daemon", configuration=configuration):
        from_cache(dnf, "install", "hello")
        make_rpm(tree, "third")
        wait_until(lambda: len(read_view(from_disk(tree)).packages) == 3)
        from_cache(dnf, "install", "other")
        assert "third-1.0-1.noarch" in dnf.available()


# -- importing ---------------------------------------------------------------------------------


@needs_root
@pytest.mark.client("apache2", "wget")
def test_a_repository_is_imported_and_what_was_cut_short_is_fetched_again(
    old: Apache, tree: Path, tmp_path: Path
) -> None:
    make_rpm(tree / "a&b^c", "odd+name")
    createrepo(tree)
    (tmp_path / "rpm").mkdir()
    commands = blocks("Importing from Nexus or Pulp")[1]
    changes = {"https://nexus.example.org/repository/yum": old.url.rstrip("/"), TREE: f"{tmp_path}/rpm"}
    with Daemon(tmp_path / "rpm", scratch=tmp_path / "daemon") as daemon:
        shell(commands, changes)
        names = {HELLO, "other-1.0-1.noarch.rpm", "a&b^c/odd+name-1.0-1.noarch.rpm"}
        wait_until(lambda: locations(daemon, "rpm") == names)
        truncate(tmp_path / "rpm" / HELLO, size=500)
        wait_until(lambda: list(daemon.rejected("rpm")) == [HELLO])
        shell(commands, changes)
        wait_until(lambda: locations(daemon, "rpm") == names)


# -- backup, restore, moving -------------------------------------------------------------------


def back_up(tmp_path: Path, tree: Path, keyring: Path) -> Path:
    """Do it as the page says; the copy of the tree."""
    backup = tmp_path / "backup"
    changes = {
        TREE: str(tree),
        "/srv/backup/rpm-repo": str(backup),
        "/etc/repowatch/": f"{tmp_path}/daemon/",
        "/srv/backup/etc-repowatch/": f"{tmp_path}/configuration/",
        "/var/lib/repowatch/": f"{keyring}/",
        "/srv/backup/var-lib-repowatch/": f"{tmp_path}/keyring/",
    }
    [commands] = blocks("Backup")
    shell(commands, changes)
    return backup


@pytest.mark.client("rsync")
def test_what_is_restored_is_newer_than_what_clients_saw(tmp_path: Path) -> None:
    tree = tmp_path / "rpm"
    make_rpm(tree)
    with Daemon(tree, scratch=tmp_path / "daemon") as daemon:
        backup = back_up(tmp_path, tree, tmp_path / "daemon")
        wait_for_a_later_second(max(revision(tree), newest(tree)))
        answer = daemon.put("/rpm/later.rpm", make_rpm(tmp_path, "later"))
        assert answer.status == 201
        seen = revision(tree), newest(tree)
        assert daemon.terminate() == 0
        shutil.rmtree(tree)
        tree.mkdir()
        wait_for_a_later_second(max(seen))

        [commands] = blocks("Restore")
        shell(commands, _restored(tree, backup))
        daemon.start()
        wait_until(lambda: daemon.get("/readyz").status == 200)
        assert locations(daemon, "rpm") == {HELLO}
        assert revision(tree) > seen[0]
        assert newest(tree) > seen[1]
        restored = revision(tree)
        assert daemon.put("/rpm/later.rpm", make_rpm(tmp_path, "later")).status == 201
        assert revision(tree) > restored


@pytest.mark.client("rsync", "gpg")
def test_snapshots_batches_and_the_signature_are_whole_after_a_restore(
    tmp_path: Path, keyring: Keyring
) -> None:
    tree = tmp_path / "rpm"
    make_rpm(tree), make_rpm(tree, "leaving")
    configuration = f"""
sign: {{keys: [{keyring.make_key("one")}], keyring: {keyring.home}}}
repositories: {{rpm: {{path: {tree}}}}}
"""
    with Daemon(scratch=tmp_path / "daemon", configuration=configuration) as daemon:
        post(daemon, "snapshot", {"name": "then"})
        assert daemon.request("DELETE", "/rpm/leaving-1.0-1.noarch.rpm").status == 204
        package = make_rpm(tmp_path, "in-a-batch")
        batched = {"Repowatch-Batch": "open"}
        assert daemon.put(f"/rpm/{package.name}", package, headers=batched).status == 202
        backup = back_up(tmp_path, tree, keyring.home)
        for copy in (backup / HELLO, *(backup / ".repowatch/retired").glob("*.rpm")):
            assert copy.stat().st_nlink == (1 if "hello" not in rpm_name(copy) else 2), copy
        assert not (tmp_path / "keyring" / "S.gpg-agent").exists()
        assert daemon.terminate() == 0
        shutil.rmtree(tree)
        tree.mkdir()
        [commands] = blocks("Restore")
        shell(commands, _restored(tree, backup))
        daemon.start()
        wait_until(lambda: locations(daemon, "rpm") == {HELLO})
        repomd, signature = (daemon.get(f"/rpm/repodata/repomd.xml{end}").body for end in ("", ".asc"))
        assert keyring.good(repomd, signature) == keyring.fingerprints()
        assert daemon.get("/rpm@then/leaving-1.0-1.noarch.rpm").status == 200
        assert post(daemon, "rollback", {"name": "then"})["returned"] == ["leaving-1.0-1.noarch.rpm"]
        assert post(daemon, "commit", {"batch": "open"})["locations"] == [package.name]
        assert len(locations(daemon, "rpm")) == 3


def post(daemon: Daemon, operation: str, arguments: dict[str, str]) -> dict[str, Any]:
    answer = daemon.request("POST", f"/-/api/v1/rpm/{operation}", json.dumps(arguments).encode())
    assert answer.status == 200, answer
    told: dict[str, Any] = json.loads(answer.text)
    return told


def rpm_name(package: Path) -> str:
    return run("rpm", "-qp", "--queryformat", "%{NAME}", package)


def _restored(tree: Path, backup: Path) -> dict[str, str]:
    return {
        "systemctl stop repowatch": ":",
        "systemctl start repowatch": ":",
        "chown -R repowatch:": "test -d",
        TREE: str(tree),
        "/srv/backup/rpm-repo": str(backup),
    }


@pytest.mark.client("rsync")
def test_a_package_that_came_while_the_backup_ran_is_listed_after_it(tmp_path: Path) -> None:
    tree, backup = tmp_path / "rpm", tmp_path / "backup"
    make_rpm(tree), make_rpm(tree, "leaving")
    assert repowatch("index", tree).returncode == 0
    run("rsync", "-aH", "--exclude=/.repowatch/cache/", f"{tree}/", f"{backup}/")
    make_rpm(backup, "came")
    (backup / "leaving-1.0-1.noarch.rpm").unlink()
    tree.rename(tmp_path / "lost")
    [commands] = blocks("Restore")
    shell(commands, _restored(tree, backup))
    with Daemon(tree, scratch=tmp_path / "daemon") as daemon:
        wait_until(lambda: locations(daemon, "rpm") == {HELLO, "came-1.0-1.noarch.rpm"})


@pytest.mark.client("rsync")
def test_another_server_goes_on_where_the_old_one_was(tmp_path: Path) -> None:
    old, new = tmp_path / "old" / "rpm", tmp_path / "new" / "rpm"
    make_rpm(old), make_rpm(old, "other")
    new.mkdir(parents=True)
    with Daemon(old, scratch=tmp_path / "one") as daemon:
        wait_until(lambda: daemon.get("/readyz").status == 200)
        assert daemon.put("/rpm/third.rpm", make_rpm(tmp_path, "third")).status == 201
        before = (old / "repodata" / "repomd.xml").read_bytes()
        commands = "".join(blocks("Moving to another server"))
        remote = f"old.example.org:{TREE}"
        changes = {
            remote: str(old),
            TREE: str(new),
            "ssh old.example.org systemctl stop repowatch": f"kill {daemon.pid}",
            "systemctl start repowatch": ":",
        }
        shell(commands, changes)
        assert daemon.wait() == 0
    with Daemon(new, scratch=tmp_path / "two") as daemon:
        wait_until(lambda: daemon.get("/readyz").status == 200)
        assert len(locations(daemon, "rpm")) == 3
        assert (new / "repodata" / "repomd.xml").read_bytes() == before
        before_upload = revision(new)
        assert daemon.put("/rpm/fourth.rpm", make_rpm(tmp_path, "fourth")).status == 201
        assert revision(new) > before_upload


# -- full disk ---------------------------------------------------------------------------------


def test_a_full_disk_refuses_uploads_lets_go_of_packages_and_needs_no_restart(tmp_path: Path) -> None:
    require_mounts()
    with memory_disk(tmp_path / "disk", kilobytes=16384) as disk:
        tree = disk / "rpm"
        make_rpm(tree), make_rpm(tree, "large", files={"/usr/share/large": os.urandom(1 << 20)})
        (tree / ".in").mkdir()
        late = make_rpm(tree / ".in", "late")
        with Daemon(tree, scratch=tmp_path / "daemon") as daemon:
            wait_until(lambda: len(locations(daemon, "rpm")) == 2)
            ballast = fill(disk, leave=200 << 10)  # less than 2 %
            [commands] = blocks("Full disk")
            assert "tmpfs" in shell(commands, {TREE: str(tree)})
            assert daemon.put("/rpm/new.rpm", make_rpm(tmp_path, "new")).status == 507
            assert daemon.request("DELETE", f"/rpm/{HELLO}").status == 204
            assert len(locations(daemon, "rpm")) == 1

            ballast.unlink()
            fill(disk)
            os.rename(late, tree / late.name)
            wait_until(lambda: daemon.get("/healthz").status == 503)
            assert "No space left" in daemon.get("/healthz").text
            assert len(locations(daemon, "rpm")) == 1
            (tree / "large-1.0-1.noarch.rpm").unlink()
            wait_until(lambda: daemon.get("/healthz").status == 200, 40)
            assert locations(daemon, "rpm") == {late.name}


# -- upgrade and downgrade ---------------------------------------------------------------------


def test_the_cache_of_another_version_is_left_aside(tmp_path: Path) -> None:
    tree = tmp_path / "rpm"
    make_rpm(tree), make_rpm(tree, "other")
    assert repowatch("index", tree).returncode == 0
    before = (tree / "repodata" / "repomd.xml").read_bytes()
    _, check = blocks("Upgrade and downgrade")
    path = tree / ".repowatch" / "cache" / "catalog"
    content = re.sub(rb'"format": ?\d+', b'"format":999', path.read_bytes(), count=1)
    text, _ = content[:-65], content[-65:]
    assert b'"format":999' in text
    path.write_bytes(text + hashlib.sha256(text).hexdigest().encode() + b"\n")
    configuration = tmp_path / "daemon" / "repowatch.yaml"
    with Daemon(
        scratch=tmp_path / "daemon", configuration=f"repositories: {{rpm: {{path: {tree}}}}}"
    ) as daemon:
        wait_until(lambda: daemon.get("/readyz").status == 200)
        assert "it has format 999" in daemon.log
        assert len(locations(daemon, "rpm")) == 2
        assert (tree / "repodata" / "repomd.xml").read_bytes() == before
    told = replaced(check, {"/etc/repowatch/repowatch.yaml": str(configuration)}).split()
    assert told[0] == "repowatch"
    assert repowatch(*told[1:]).returncode == 0


# -- clients -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    scratch = tmp_path_factory.mktemp("shared")
    make_rpm(scratch / "rpm")
    with Daemon(scratch / "rpm", scratch=scratch) as daemon:
        wait_until(lambda: daemon.get("/readyz").status == 200)
        yield daemon


@needs_root
@pytest.mark.client("dnf", "zypper")
def test_the_file_for_clients_works_with_dnf_and_zypper(shared: Daemon, tmp_path: Path) -> None:
    text = replaced(
        (PROJECT / "conf" / "repowatch.repo").read_text(), {"https://rpm.example.org/": shared.url}
    )
    for directory in ("yum.repos.d", "zypp/repos.d"):
        (tmp_path / "etc" / directory).mkdir(parents=True)
        (tmp_path / "etc" / directory / "rpm.repo").write_text(text)
    assert_installs(tmp_path)


def test_the_tasks_use_nothing_but_ansibles_own_modules() -> None:
    tasks = yaml.safe_load((PROJECT / "conf" / "ansible.yaml").read_text())
    modules = [key for task in tasks for key in task if "." in key]
    assert modules == ["ansible.builtin.uri", "ansible.builtin.stat", "ansible.builtin.copy"]


def assert_installs(machine: Path) -> None:
    """dnf and zypper install from the files below etc/."""
    (machine / "dnf.conf").write_text("[main]\n")
    dnf = Dnf(machine, (f"--setopt=reposdir={machine}/etc/yum.repos.d",))
    dnf("install", "hello")
    assert (dnf.root / "usr/share/doc/hello/README").exists()
    shutil.rmtree(dnf.root)
    log = f"ZYPP_LOGFILE={machine}/log"
    run("env", log, "zypper", "--root", machine, "--no-gpg-checks", "--non-interactive", "install", "hello")
    assert (machine / "usr/share/doc/hello/README").exists()
