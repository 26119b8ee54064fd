"""What a client sends: streamed aside, counted, checked, and put into its place whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import logging
import os
import re
import secrets
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import Any

from repowatch.errors import BadMetadata, BadPackage, Conflict, Misunderstood, RepowatchError, Unfinished
from repowatch.model.digests import Inspection, Inspector, Spread
from repowatch.model.package import Stamp
from repowatch.model.publication import Listed
from repowatch.system.files import make_directories, make_sure_of, remove_if_there
from repowatch.web.conditions import Conditions, evaluate
from repowatch.web.http.body import BodyError
from repowatch.web.intake import Intake
from repowatch.web.served import Served

log = logging.getLogger(__name__)

# Names in staging: of this run of the daemon, and in it.
_RUN = secrets.token_hex(8)
_numbers = itertools.count()

ANSWER = "repowatch.answer"  # where in the environment what became of a change is left

BATCH = "HTTP_REPOWATCH_BATCH"  # the field that names a batch

PATIENCE = 30.0  # seconds that a client waits for its package to be listed; then it is told 202

RESERVE = 256 << 20  # bytes of the disk that uploads leave, or 2 % of it where that is less
LOOK_AGAIN = 64 << 20  # bytes of a body after which the free space is looked at again

NO_CONDITIONS = Conditions()

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})  # errors that say there is no room

_STATUS_OF = {
    **dict.fromkeys(FULL, HTTPStatus.INSUFFICIENT_STORAGE),
    errno.EACCES: HTTPStatus.FORBIDDEN,
    errno.EPERM: HTTPStatus.FORBIDDEN,
    errno.ENOENT: HTTPStatus.CONFLICT,
    errno.EEXIST: HTTPStatus.CONFLICT,
    errno.ENOTDIR: HTTPStatus.CONFLICT,
    errno.EISDIR: HTTPStatus.CONFLICT,
    errno.ENAMETOOLONG: HTTPStatus.BAD_REQUEST,
}
_HEX_SHA256 = re.compile("[0-9a-fA-F]{64}")
_DIGEST_FIELD = re.compile(r"(sha-256|sha-512)=:([A-Za-z0-9+/=]+):")


class Refusal(RepowatchError):
    """A request that is refused: the status, and the reason in one line of text."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client is told of its change."""

    status: HTTPStatus
    revision: int | None = None
    etag: str | None = None
    text: str = ""
    checksum: str | None = None  # of the content that came: the pkgid of a package, else SHA-256


@dataclass(frozen=True, slots=True)
class Expected:
    """What a request says of its own body and of the target."""

    length: int | None  # bytes, by Content-Length
    digests: tuple[tuple[str, str], ...]  # hashlib's name, hexadecimal
    conditions: Conditions
    respond_async: bool
    batch: str | None = None  # what it waits for; None: it is published at once
    who: str | None = None

    @classmethod
    def of(cls, environ: Mapping[str, Any]) -> Expected:
        """What a WSGI environment says. Raises Refusal (400) for a digest that can not be read."""
        length = environ.get("CONTENT_LENGTH")
        prefer = environ.get("HTTP_PREFER", "").lower()
        return cls(
            int(length) if length else None,
            (*_hexadecimal(environ.get("HTTP_X_CHECKSUM_SHA256")), *_content_digest(environ)),
            Conditions.of(environ),
            "respond-async" in (part.split(";")[0].strip() for part in prefer.split(",")),
            environ.get(BATCH),
            environ.get("REMOTE_USER") or None,
        )


def _hexadecimal(field: str | None) -> tuple[tuple[str, str], ...]:
    if field is None:
        return ()
    if not _HEX_SHA256.fullmatch(field.strip()):
        raise Refusal(HTTPStatus.BAD_REQUEST, "X-Checksum-Sha256 is not 64 hexadecimal digits")
    return (("sha256", field.strip().lower()),)


def _content_digest(environ: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The digests of a Content-Digest field that are known here (RFC 9530); others say nothing."""
    found = _DIGEST_FIELD.findall(environ.get("HTTP_CONTENT_DIGEST", ""))
    try:
        return tuple((name.replace("-", ""), b64decode(value, validate=True).hex()) for name, value in found)
    except Base64Error:
        raise Refusal(HTTPStatus.BAD_REQUEST, "Content-Digest is not base64") from None


class Upload:
    """One file on its way in. `finish` puts it into its place; `discard` leaves nothing of it."""

    def __init__(
        self, repository: Served, location_href: str, expected: Expected, *, most: int | None = None
    ) -> None:
        """Begin to stage. Raises Refusal: 409, 412, 413, 507."""
        self._repository = repository
        self._location_href = location_href
        self._expected = expected
        self._most = most
        self._count = 0
        self._is_package = repository.is_package_name(location_href)
        self._inspector = (
            Inspector(size=expected.length, checksum=repository.checksum) if self._is_package else None
        )
        self._sums = {name: hashlib.new(name) for name, _ in expected.digests}
        if not self._is_package:
            self._sums.setdefault("sha256", hashlib.sha256())  # of a package it is the pkgid
        self._intake: Intake | None = None
        self._received: Callable[[], None] = lambda: None
        with told():
            staging = repository.staging()
        self._staging = staging
        self._look_again = LOOK_AGAIN
        self._staged = os.path.join(staging, f"upload-{_RUN}-{next(_numbers)}")
        self._is_in_place = False
        check_conditions(repository, location_href, expected.conditions)
        if expected.batch is not None:
            self._check_batch()
        if most is not None and (expected.length or 0) > most:
            raise _too_large(most)
        with told():
            self._leave_room(expected.length or 0)
            self._intake = Intake(self._staged, hash_with=self._hash)
        if self._is_package and expected.batch is None:
            self._received = repository.expect()

    def write(self, data: bytes) -> None:
        """Take the next bytes. Raises Refusal: 413, 422, 507."""
        self._count += len(data)
        if self._most is not None and self._count > self._most:
            raise _too_large(self._most)
        with told():
            if self._count > self._look_again:
                self._look_again = self._count + LOOK_AGAIN
                self._leave_room(0)
            assert self._intake is not None
            self._intake.take(data)

    def _hash(self, data: bytes, *, spread: Spread) -> None:
        """Read the next bytes for all digests; maybe in another thread, but one block after the other."""
        sums = [partial(digest.update, data) for digest in self._sums.values()]
        if self._inspector:
            self._inspector.feed(data, spread=lambda digests: spread([*digests, *sums]))
        else:
            spread(sums)

    def finish(self) -> Answer:
        """Check the whole, make it durable, give it its name; what the client is to be told.

        Raises Refusal: 400, 409, 412, 422, 503, 507.
        """
        assert self._intake is not None
        with told():
            self._intake.finish_hashing()
            self._compare()
            inspection = self._inspector.finish() if self._inspector and self._count else None
            self._intake.sync()
            self._received()
            if self._expected.batch is not None:
                answer = self._keep(self._expected.batch, inspection)
            else:
                answer = publish(
                    self._repository,
                    self._location_href,
                    staged=self._staged,
                    inspection=inspection,
                    conditions=self._expected.conditions,
                    patience=0 if self._expected.respond_async else PATIENCE,
                )
        self._is_in_place = not self._is_package  # one that is listed already stays in staging
        return replace(answer, checksum=inspection.pkgid if inspection else self._sum())

    def _check_batch(self) -> None:
        """Raise Refusal for what can not wait in a batch."""
        if not self._is_package or self._repository.batched is None:
            raise Refusal(HTTPStatus.BAD_REQUEST, "only packages can be part of a batch")

    def _keep(self, batch: str, inspection: Inspection | None) -> Answer:
        """Let a checked package wait for the commit of its batch."""
        repository, location_href = self._repository, self._location_href
        if inspection is None or repository.batched is None:
            raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "an empty file is no package; nothing was changed")
        check_conditions(repository, location_href, self._expected.conditions)
        if not repository.replace and not _is_listed(repository, location_href, inspection.pkgid):
            refuse_to_replace(repository.path(location_href))
        text = repository.batched.put(
            batch,
            location_href,
            staged=self._staged,
            inspection=inspection,
            is_conditional=self._expected.conditions != NO_CONDITIONS,
            who=self._expected.who,
        )
        return Answer(HTTPStatus.ACCEPTED, text=text)

    def _sum(self) -> str | None:
        digest = self._sums.get("sha256")
        return digest.hexdigest() if digest else None

    def discard(self) -> None:
        """Remove what is left in staging. Does nothing more after a success."""
        self._received()
        if self._intake:
            self._intake.close()
        if self._is_in_place:
            return
        try:
            remove_if_there(self._staged)
        except OSError as error:
            log.error("%s stays until the next start: %s", self._staged, error)

    def _leave_room(self, coming: int) -> None:
        leave_room(self._staging, coming, reserve=self._repository.reserve)

    def _compare(self) -> None:
        wanted = self._expected.length
        if wanted is not None and wanted != self._count:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"the body ended after {self._count} of {wanted} bytes")
        for name, digest in self._expected.digests:
            if self._sums[name].hexdigest() != digest:
                raise Refusal(HTTPStatus.BAD_REQUEST, f"the body does not have the announced {name}")


def leave_room(directory: str, coming: int, *, reserve: int | None) -> None:
    """Raise OSError (ENOSPC) when what is still to come would take from the reserve."""
    status = os.statvfs(directory)
    free = status.f_bavail * status.f_frsize
    if reserve is None:
        reserve = min(RESERVE, status.f_blocks * status.f_frsize // 50)
    if coming + reserve > free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def publish(
    repository: Served,
    location_href: str,
    *,
    staged: str,
    inspection: Inspection | None,
    conditions: Conditions = NO_CONDITIONS,
    departs: str | None = None,
    patience: float = PATIENCE,
) -> Answer:
    """Give a durable, checked file its name, and wait until a publication lists it if it is a package.

    When it is not listed after `patience` seconds, it gets its name all the same and is listed later (202).
    `departs` is the name that `staged` had so far. Raises Refusal, BadPackage, OSError.
    """

    def check() -> None:
        check_conditions(repository, location_href, conditions)
        identical = inspection and _is_listed(repository, location_href, inspection.pkgid)
        if not repository.replace and repository.is_package_name(location_href) and not identical:
            refuse_to_replace(repository.path(location_href))

    if not repository.is_package_name(location_href):
        # What file managers create empty is not looked at; nor does it take the place of what is published.
        is_companion = repository.is_companion(location_href) and os.stat(staged).st_size > 0
        if is_companion:
            repository.examine(location_href, staged)
        answer = _put_into_place(repository, location_href, staged, check, departs=departs)
        if is_companion:
            answer = _shown(repository, location_href, answer, patience)
        if departs is not None and repository.is_companion(departs):
            wait_for(repository.look(departs))
        if departs is not None and repository.is_package_name(departs):
            wait_for(repository.look(departs))
        return answer
    if inspection and departs is None and _is_listed(repository, location_href, inspection.pkgid):
        return Answer(HTTPStatus.NO_CONTENT, _revision(repository), inspection.pkgid)
    check()
    if patience > 0:
        arrived = repository.admit(
            location_href,
            staged=staged,
            inspection=inspection,
            stamp=Stamp.of(os.stat(staged)),
            check=check,
            departs=departs,
        )
        if listed := _wait(arrived, patience):
            return _told_of(repository, location_href, listed, inspection)
    _put_into_place(repository, location_href, staged, check, departs=departs)
    for name in filter(None, (location_href, departs)):
        repository.look(name)
    return _later(repository, location_href)


def _told_of(repository: Served, location_href: str, listed: Listed, inspection: Inspection | None) -> Answer:
    if listed.revision is None:
        return _later(repository, location_href)
    done = HTTPStatus.NO_CONTENT if listed.replaced else HTTPStatus.CREATED
    pkgid = inspection.pkgid if inspection else None
    if pkgid and listed.note and not _is_listed(repository, location_href, pkgid):
        pkgid = None  # the tag of a file that is not listed is another one
    return Answer(done, listed.revision, pkgid, listed.note)


def _shown(repository: Served, location_href: str, stored: Answer, patience: float) -> Answer:
    """What is told of a companion that has its name: wait until a publication has it."""
    looked_at = repository.look(location_href)
    try:
        return replace(stored, revision=looked_at.result(patience).revision)
    except (TimeoutError, OSError, RepowatchError):
        return replace(stored, status=HTTPStatus.ACCEPTED, text=f"{location_href} is stored, to be published")


def _later(repository: Served, location_href: str) -> Answer:
    """The file is stored for good, and no publication lists it yet."""
    text = f"{location_href} is stored and will be listed; the revision is still {_revision(repository)}"
    return Answer(HTTPStatus.ACCEPTED, text=text)


def refuse_to_replace(path: str) -> None:
    """Raise Refusal (409) where content stands already; what file managers create empty is none."""
    with contextlib.suppress(FileNotFoundError):
        if os.lstat(path).st_size:
            name = os.path.basename(path)
            raise Refusal(HTTPStatus.CONFLICT, f"{name} exists with other content and may not be replaced")


def _wait(answer: Future[Listed], patience: float) -> Listed | None:
    """The answer; None when it did not come in time and the change was taken back."""
    try:
        return answer.result(patience)
    except TimeoutError:
        if answer.cancel():
            return None
        return answer.result()  # it belongs to the publication in hand


def wait_for(answer: Future[Listed]) -> Answer:
    """The answer to a change that the tree shows already, and the next publication will: 204, or 202."""
    try:
        return Answer(HTTPStatus.NO_CONTENT, answer.result(PATIENCE).revision)
    except TimeoutError:
        return Answer(HTTPStatus.ACCEPTED, text="done; the metadata will follow")


def _put_into_place(
    repository: Served, location_href: str, staged: str, check: Callable[[], None], *, departs: str | None
) -> Answer:
    """Rename, durably."""
    check()
    target = repository.path(location_href)
    replaced = os.path.lexists(target)
    try:
        os.rename(staged, target)
    except FileNotFoundError:
        make_directories(os.path.dirname(target), below=repository.root)
        os.rename(staged, target)
    # A name in staging that comes back is removed at the next start; any other was a client's.
    make_sure_of(os.path.dirname(target), *([os.path.dirname(staged)] if departs else []))
    etag = repository.etag(location_href, os.stat(target, follow_symlinks=False))
    return Answer(HTTPStatus.NO_CONTENT if replaced else HTTPStatus.CREATED, etag=etag)


def check_conditions(repository: Served, location_href: str, conditions: Conditions) -> None:
    """Hold a request's conditions against its target as it is now. Raises Refusal (412)."""
    if conditions == NO_CONDITIONS:
        return
    try:
        status = os.stat(repository.path(location_href), follow_symlinks=False)
    except OSError:
        status = None
    verdict = evaluate(
        conditions,
        method="PUT",
        exists=status is not None,
        etag=repository.etag(location_href, status) if status else None,
        last_modified=status.st_mtime if status else None,
    )
    if verdict is not None:
        asked = ", ".join(conditions.names())
        raise Refusal(verdict, f"{location_href} is not as the request expects it ({asked})")


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turn what can go wrong with a change into what the client is told."""
    try:
        yield
    except Refusal:
        raise
    except BodyError as error:
        raise Refusal(error.status, str(error)) from error
    except (BadPackage, BadMetadata) as error:
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
    except Misunderstood as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, str(error)) from error
    except Conflict as error:
        raise Refusal(HTTPStatus.CONFLICT, str(error)) from error
    except Unfinished as error:
        raise Refusal(_status_of(error.error), str(error)) from error
    except RepowatchError as error:
        raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error
    except OSError as error:
        raise Refusal(_status_of(error), _reason(error)) from error


def _status_of(error: OSError) -> HTTPStatus:
    return _STATUS_OF.get(error.errno or 0, HTTPStatus.INTERNAL_SERVER_ERROR)


def _reason(error: OSError) -> str:
    return f"{(error.strerror or str(error)).lower()}; nothing was changed"


def _too_large(most: int) -> Refusal:
    return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"larger than {most} bytes, the most that is taken")


def _revision(repository: Served) -> int | None:
    publication = repository.publication()
    return publication.revision if publication else None


def _is_listed(repository: Served, location_href: str, pkgid: str) -> bool:
    try:
        status = os.stat(repository.path(location_href), follow_symlinks=False)
    except OSError:
        return False
    return repository.pkgid(location_href, status) == pkgid
