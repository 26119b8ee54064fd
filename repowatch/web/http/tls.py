"""Makes the TLS context from PEM files, and anew when they change; tells who a client's certificate names."""

from __future__ import annotations

import base64
import logging
import os
import re
import ssl
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NoReturn

from repowatch.errors import RepowatchError, UsageError
from repowatch.system.clock import Clock

log = logging.getLogger(__name__)

LOOK_EVERY = 0.5  # seconds: a change is to take effect within one

# The forms that OpenSSL takes for a certificate; the first one in the file is the server's own.
_CERTIFICATE = re.compile(
    rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----(.+?)-----END (?:X509 |TRUSTED )?CERTIFICATE-----",
    re.DOTALL,
)
_PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")

# DER tags (X.690): the explicit [0] of a certificate's version, and its older form of time.
_VERSION = 0xA0
_UTC_TIME = 0x17

_Stamp = tuple[int, int, int, int, int] | None


@dataclass(frozen=True, slots=True)
class _Files:
    """The paths of PEM files, as the configuration has them."""

    certificate: str
    key: str
    client_ca: str | None

    def stamps(self) -> tuple[_Stamp, ...]:
        """What tells that one was written or replaced; links are followed, as certbot swaps those."""
        return tuple(_stamp(path) for path in (self.certificate, self.key, self.client_ca) if path)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What the files gave when they were read."""

    context: ssl.SSLContext
    expires_at: float  # seconds since 1970


class Certificates:
    """The server's certificate and key, and the authority whose clients it knows; any thread may ask."""

    def __init__(self, *, certificate: str, key: str, client_ca: str | None, clock: Clock) -> None:
        """Raises UsageError, naming the file, where one is missing, unreadable, or does not fit."""
        self._files = _Files(certificate, key, client_ca)
        self._clock = clock
        self._looking = threading.Lock()
        self._complaint = ""
        # Before reading: what changes while it is read is seen as a change at the next look.
        self._stamps = self._files.stamps()
        self._loaded = self._load()
        self._look_at = clock.monotonic() + LOOK_EVERY

    def context(self) -> ssl.SSLContext:
        """The one to wrap the next connection with.

        Files that changed are read again, at most every `LOOK_EVERY` seconds. While they do not load, as
        between the writing of a certificate and of its key, the context that was good stays.
        """
        if self._clock.monotonic() >= self._look_at and self._looking.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._looking.release()
        return self._loaded.context

    def expires_at(self) -> float:
        """When the server's own certificate expires, in seconds since 1970."""
        return self._loaded.expires_at

    def _look(self) -> None:
        self._look_at = self._clock.monotonic() + LOOK_EVERY
        stamps = self._files.stamps()
        if stamps == self._stamps:
            return
        try:
            self._loaded = self._load()
        except RepowatchError as error:
            # The stamps stay, so that each look tries again: the cause may be no file, but the machine.
            if str(error) != self._complaint:
                log.error("the new certificate is not used, the old one stays: %s", error)
            self._complaint = str(error)
            return
        self._stamps = stamps
        self._complaint = ""
        log.info("%s: read again", self._files.certificate)

    def _load(self) -> _Loaded:
        loaded = _load(self._files)
        if loaded.expires_at <= self._clock.now():
            date = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(loaded.expires_at))
            log.warning(
                "%s: expired at %s UTC, clients refuse it; put a new one in its place",
                self._files.certificate,
                date,
            )
        return loaded


def identity_of(connection: ssl.SSLSocket | ssl.SSLObject) -> str | None:
    """The commonName of the client's verified certificate after the handshake, None without one.

    None as well where it names nobody that could be a user: no name or several, `anyone`, one that begins
    as a group does, or one that an htpasswd file or a log line can not hold.
    """
    try:
        certificate = connection.getpeercert() or {}
    except (ssl.SSLError, UnicodeDecodeError):
        return None
    # The type of a certificate's fields in typeshed is wider than what a subject is: names within RDNs.
    subject: tuple[tuple[tuple[str, str], ...], ...] = certificate.get("subject", ())  # type: ignore[assignment]
    names = [value for rdn in subject for attribute, value in rdn if attribute == "commonName"]
    if len(names) != 1:
        return None
    name = names[0]
    if not name or not name.isprintable() or ":" in name or name.startswith("@") or name == "anyone":
        return None
    return name


def _load(files: _Files) -> _Loaded:
    certificate = _read(files.certificate, key="tls.certificate", form=_CERTIFICATE, what="certificate")
    _read(files.key, key="tls.key", form=_PRIVATE_KEY, what="private key")
    expires_at = _expiry(files.certificate, certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # The client chooses among ciphers that are all good: it knows what its processor does fast.
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    _load_pair(context, files)
    if files.client_ca:
        _load_client_ca(context, files.client_ca)
    return _Loaded(context, expires_at)


def _load_pair(context: ssl.SSLContext, files: _Files) -> None:
    def refuse() -> NoReturn:
        # Without this, OpenSSL asks for the password on the terminal and waits.
        raise UsageError(
            f"{files.key}: the key is encrypted; give one without a password "
            "(openssl pkey -in ... -out ...), readable by the daemon's user alone (tls.key)"
        )

    try:
        context.load_cert_chain(files.certificate, files.key, password=refuse)
    except ssl.SSLError as error:
        if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
            raise UsageError(
                f"{files.key}: the key does not belong to the certificate in {files.certificate}; "
                "give both of one pair (tls.certificate, tls.key)"
            ) from error
        raise UsageError(
            f"{files.certificate} and {files.key}: can not be used together: {_reason(error)}; "
            "give a certificate and its key as whole PEM files (tls.certificate, tls.key)"
        ) from error
    except OSError as error:
        raise UsageError(f"{files.certificate} and {files.key}: can not be read: {_reason(error)}") from error


def _load_client_ca(context: ssl.SSLContext, client_ca: str) -> None:
    _read(client_ca, key="tls.client_ca", form=_CERTIFICATE, what="certificate")
    context.verify_mode = ssl.CERT_OPTIONAL
    # An intermediate authority may stand alone: those that it vouches for are meant, not all of its root's.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cafile=client_ca)
    except OSError as error:
        raise UsageError(
            f"{client_ca}: can not be used: {_reason(error)}; give whole PEM certificates (tls.client_ca)"
        ) from error


def _read(path: str, *, key: str, form: re.Pattern[bytes], what: str) -> bytes:
    """The content of a file, which has to have the form; `key` is where the configuration names it."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise UsageError(
            f"{path}: the {what} can not be read: {_reason(error)}; "
            f"give a PEM file that the daemon's user may read ({key})"
        ) from error
    if not form.search(content):
        raise UsageError(f"{path}: holds no {what} in PEM form; give a file that does ({key})")
    return content


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return (error.strerror or str(error)).lower()


def _stamp(path: str) -> _Stamp:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _expiry(path: str, content: bytes) -> float:
    match = _CERTIFICATE.search(content)
    try:
        return _not_after(base64.b64decode(match[1] if match else b""))
    except (ValueError, IndexError) as error:
        raise UsageError(
            f"{path}: the first certificate is damaged; give whole PEM certificates (tls.certificate)"
        ) from error


def _not_after(certificate: bytes) -> float:
    """When a certificate expires, in seconds since 1970 (RFC 5280 section 4.1.2.5).

    Python's ssl module shows it of a peer's alone. Raises ValueError or IndexError for other bytes.
    """
    to_be_signed = _elements(_elements(certificate)[0][1])[0][1]
    fields = [content for tag, content in _elements(to_be_signed) if tag != _VERSION]
    _serial_number, _signature, _issuer, validity = fields[:4]
    tag, text = _elements(validity)[1]
    date = text.decode("ascii")
    if tag == _UTC_TIME:
        date = ("19" if date >= "5" else "20") + date
    return datetime.strptime(date, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _elements(der: bytes) -> list[tuple[int, bytes]]:
    """Tag and content of each DER element in a row (X.690 section 8.1)."""
    elements = []
    start = 0
    while start < len(der):
        tag, length, start = der[start], der[start + 1], start + 2
        if length & 0x80:
            long, start = start, start + (length & 0x7F)
            length = int.from_bytes(der[long:start])
        elements.append((tag, der[start : start + length]))
        start += length
    return elements
