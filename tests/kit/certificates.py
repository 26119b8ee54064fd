"""Makes certificates with the `openssl` command: authorities, and the servers and clients they vouch for."""

from __future__ import annotations

import itertools
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

_AUTHORITY = "basicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign,cRLSign\n"
_SERVER = (
    "basicConstraints=CA:false\nextendedKeyUsage=serverAuth\nsubjectAltName=DNS:{name},IP:127.0.0.1,IP:::1\n"
)
_CLIENT = "basicConstraints=CA:false\nextendedKeyUsage=clientAuth\n"


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, PEM files."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority whose files lie in a directory; EC keys on P-256, made in milliseconds.

    With `above` it is an intermediate one, else its own root.
    """

    def __init__(self, directory: Path, name: str = "authority", *, above: Authority | None = None) -> None:
        self._directory = directory
        self._name = name
        self._numbers = itertools.count(1)
        if above:
            self.pair = above.issue(f"/CN={name}", extensions=_AUTHORITY, days=30)
        else:
            self.pair = self.issue(f"/CN={name}", extensions=_AUTHORITY, days=30)

    @property
    def certificate(self) -> Path:
        """What those who trust it need, a PEM file."""
        return self.pair.certificate

    def server(self, name: str = "localhost", *, days: int = 30) -> Pair:
        """A server's pair, for a DNS name and both loopback addresses; expired where `days` is below zero."""
        return self.issue(f"/CN={name}", extensions=_SERVER.format(name=name), days=days)

    def client(self, name: str, *, days: int = 30) -> Pair:
        """A client's pair; expired where `days` is below zero."""
        return self.issue(f"/CN={name}", extensions=_CLIENT, days=days)

    def client_context(self, pair: Pair | None = None) -> ssl.SSLContext:
        """What a client that trusts this authority connects with; `pair` is its own, to be shown."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.certificate)
        if pair:
            context.load_cert_chain(pair.certificate, pair.key)
        return context

    def issue(self, subject: str, *, extensions: str = _CLIENT, days: int = 30) -> Pair:
        """Any pair; `subject` as `openssl req -subj` takes it, `extensions` as lines of its configuration."""
        stem = self._directory / f"{self._name}-{next(self._numbers)}"
        pair = Pair(stem.with_suffix(".pem"), stem.with_suffix(".key"))
        request, configuration = stem.with_suffix(".csr"), stem.with_suffix(".cnf")
        configuration.write_text(extensions)
        _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", pair.key)
        _openssl("req", "-new", "-utf8", "-key", pair.key, "-subj", subject, "-out", request)
        _openssl(
            *("x509", "-req", "-in", request, "-out", pair.certificate, "-extfile", configuration),
            *("-days", str(days), *self._signer(pair)),
        )
        return pair

    def _signer(self, pair: Pair) -> list[str | Path]:
        if not hasattr(self, "pair"):
            return ["-signkey", pair.key]
        serial = str(int.from_bytes(pair.certificate.name.encode()))
        return ["-CA", self.pair.certificate, "-CAkey", self.pair.key, "-set_serial", serial]


def encrypted(pair: Pair, password: str) -> Pair:
    """The same certificate, with a copy of its key that a password protects."""
    key = pair.key.with_suffix(".encrypted")
    _openssl("pkey", "-in", pair.key, "-aes256", "-passout", f"pass:{password}", "-out", key)
    return Pair(pair.certificate, key)


def end_of(certificate: Path) -> float:
    """When a certificate expires, in seconds since 1970, as `openssl` says."""
    text = _openssl("x509", "-in", certificate, "-noout", "-enddate")
    return ssl.cert_time_to_seconds(text.strip().removeprefix("notAfter="))


def _openssl(*arguments: str | Path) -> str:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
