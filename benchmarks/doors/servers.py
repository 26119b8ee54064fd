"""The servers: how each is configured, started and ended. All log every access and speak TLS as well."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from benchmarks.doors import content
from tests.kit.daemon import COMMAND, wait_until

OURS, APACHE, NGINX = "repowatch", "Apache", "nginx"
USER = "www-data"  # whom Debian's servers work for, when root starts them
NGINX_DAV = Path("/usr/lib/nginx/modules/ngx_http_dav_ext_module.so")
START = 60.0  # seconds

_PLACES = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))


class Missing(Exception):
    """A program is not installed."""


def program(name: str) -> str:
    """The path of a program. Raises Missing."""
    if found := shutil.which(name, path=_PLACES):
        return found
    raise Missing(f"there is no {name} here")


def versions() -> list[str]:
    """What is compared, for people. Raises Missing."""
    if not NGINX_DAV.exists():
        raise Missing(f"there is no {NGINX_DAV} here")
    apache = _output(program("apache2"), "-v").splitlines()[0].partition("Apache/")[2].split()[0]
    nginx = _output(program("nginx"), "-v").partition("nginx/")[2].split()[0]
    return [f"Apache {apache} (event), nginx {nginx}"]


def _output(*arguments: str) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)  # noqa: S603 - no input
    return done.stdout + done.stderr


@dataclass(frozen=True, slots=True)
class Place:
    """What a server is told about its surroundings."""

    directory: Path  # configuration, logs
    tree: Path
    certificate: Path
    key: Path
    plain: int  # port on 127.0.0.1
    tls: int


class Server:
    """One that runs."""

    def __init__(self, name: str, command: Sequence[str], place: Place) -> None:
        """Start it and wait until it answers. Raises AssertionError with what it said."""
        self.name = name
        self.place = place
        self._said = place.directory / "said"
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(command, stdout=said, stderr=said)  # noqa: S603
        try:
            wait_until(self._answers_or_is_gone, START)
            if self._process.poll() is not None:
                raise AssertionError(f"{name} ended:\n{self._said.read_text()}")
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def url(self, path: str, *, tls: bool = False) -> str:
        scheme, port = ("https", self.place.tls) if tls else ("http", self.place.plain)
        return f"{scheme}://127.0.0.1:{port}{path}"

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answers_or_is_gone(self) -> bool:
        return self._process.poll() is not None or all(map(_is_open, (self.place.plain, self.place.tls)))


def _is_open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


@contextlib.contextmanager
def running(scratch: Path, tree: Path) -> Iterator[list[Server]]:
    """All three, ours first; each has a tree of the same files."""
    certificate, key = _make_certificate(scratch)
    places = {}
    for name in _STARTS:
        directory = scratch / name.lower()
        directory.mkdir()
        places[name] = Place(directory, directory / "tree", certificate, key, *_free_ports())
        # All before ours looks at its tree: one link more changes the ctime of a file.
        content.link(tree, places[name].tree, owner=_owner() if name != OURS else None)
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(_STARTS[name](place)) for name, place in places.items()]


def _start_ours(place: Place) -> Server:
    configuration = place.directory / "repowatch.yaml"
    configuration.write_text(_ours(place))
    command = [*COMMAND, "serve", "--config", str(configuration)]
    return Server(OURS, command, place)


def _ours(place: Place) -> str:
    return f"""\
listen: [http://127.0.0.1:{place.plain}, https://127.0.0.1:{place.tls}]
tls: {{certificate: {place.certificate}, key: {place.key}}}
access_log: {place.directory}/access.log
repositories:
  files: {{path: {place.tree}/files}}
  rpm: {{path: {place.tree}/rpm}}
"""


def _start_apache(place: Place) -> Server:
    configuration = place.directory / "apache.conf"
    configuration.write_text(_apache(place))
    _give(place.directory)
    return Server(APACHE, [program("apache2"), "-f", str(configuration), "-DFOREGROUND"], place)


def _apache(place: Place) -> str:
    """Debian's modules and settings, with mod_dav for the whole tree, and with threads for all clients.

    With Debian's 25 threads in a process, and with 64, connections that are kept alive are closed without a
    word while all of them are busy (the event MPM does so), and clients of the storm fail.
    """
    modules = ("mpm_event", "authz_core", "mime", "dav", "dav_fs", "dav_lock", "socache_shmcb", "ssl")
    load = "\n".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in modules)
    here = place.directory
    return f"""\
{load}
ServerName localhost
ServerRoot {here}
DefaultRuntimeDir {here}
PidFile {here}/pid
{_if_root(f"User {USER}", f"Group {USER}")}
Listen 127.0.0.1:{place.plain}
Listen 127.0.0.1:{place.tls}
ErrorLog {here}/error.log
LogFormat "%h %l %u %t \\"%r\\" %>s %O \\"%{{Referer}}i\\" \\"%{{User-Agent}}i\\"" combined
CustomLog {here}/access.log combined
TypesConfig /etc/mime.types
StartServers 2
MinSpareThreads 25
MaxSpareThreads 512
ThreadLimit 128
ThreadsPerChild 128
MaxRequestWorkers 512
MaxConnectionsPerChild 0
Timeout 300
KeepAlive On
MaxKeepAliveRequests 0
KeepAliveTimeout 60
HostnameLookups Off
EnableSendfile On
LimitRequestBody 0
DavLockDB {here}/locks
DocumentRoot {place.tree}
<Directory {place.tree}>
    Dav On
    AllowOverride None
    Require all granted
</Directory>
SSLSessionCache shmcb:{here}/sessions(512000)
<VirtualHost 127.0.0.1:{place.tls}>
    SSLEngine on
    SSLProtocol all -SSLv3 -TLSv1 -TLSv1.1
    SSLCertificateFile {place.certificate}
    SSLCertificateKeyFile {place.key}
</VirtualHost>
"""


def _start_nginx(place: Place) -> Server:
    configuration = place.directory / "nginx.conf"
    configuration.write_text(_nginx(place))
    return Server(NGINX, [program("nginx"), "-p", str(place.directory), "-c", str(configuration)], place)


def _nginx(place: Place) -> str:
    """Debian's nginx.conf, with the DAV modules for the whole tree."""
    here = place.directory
    return f"""\
load_module {NGINX_DAV};
daemon off;
{_if_root(f"user {USER};")}
worker_processes auto;
pid {here}/pid;
error_log {here}/error.log;
events {{ worker_connections 768; }}
http {{
    include /etc/nginx/mime.types;
    access_log {here}/access.log combined;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 60;
    keepalive_requests 100000000;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_certificate {place.certificate};
    ssl_certificate_key {place.key};
    client_max_body_size 0;
    client_body_temp_path {here}/body;
    proxy_temp_path {here}/proxy;
    fastcgi_temp_path {here}/fastcgi;
    uwsgi_temp_path {here}/uwsgi;
    scgi_temp_path {here}/scgi;
    server {{
        listen 127.0.0.1:{place.plain} backlog=1024;
        listen 127.0.0.1:{place.tls} ssl backlog=1024;
        root {place.tree};
        dav_methods PUT DELETE MKCOL COPY MOVE;
        dav_ext_methods PROPFIND OPTIONS;
        create_full_put_path on;
    }}
}}
"""


_STARTS: dict[str, Callable[[Place], Server]] = {
    OURS: _start_ours,
    APACHE: _start_apache,
    NGINX: _start_nginx,
}


def _if_root(*lines: str) -> str:
    return "\n".join(lines) if _owner() else ""


def _owner() -> str | None:
    return USER if os.geteuid() == 0 else None


def _give(directory: Path) -> None:
    """mod_dav keeps its locks there."""
    if owner := _owner():
        shutil.chown(directory, owner)


def _make_certificate(directory: Path) -> tuple[Path, Path]:
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    _output(
        *(
            program("openssl"),
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ),
        *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
        *("-keyout", str(key), "-out", str(certificate)),
    )
    return certificate, key


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]
