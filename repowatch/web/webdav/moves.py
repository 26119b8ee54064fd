"""Moves, copies and removes what is in a repository, so that a refusal leaves everything as it was."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from dataclasses import replace
from http import HTTPStatus

from repowatch.model.digests import inspect
from repowatch.system.files import fsync_directory, fsync_file, make_sure_of
from repowatch.web.served import Served
from repowatch.web.uploads import Answer, Refusal, publish, wait_for


def remove_file(repository: Served, location_href: str) -> Answer | None:
    """Remove a file; None where no publication has to tell it. Raises Refusal, RepowatchError, OSError."""
    if repository.is_package_name(location_href):
        return wait_for(repository.remove(location_href, check=lambda: None))
    path = repository.path(location_href)
    os.unlink(path)
    make_sure_of(os.path.dirname(path))
    return wait_for(repository.look(location_href)) if repository.is_companion(location_href) else None


def remove_directory(repository: Served, location_href: str) -> Answer:
    """Remove a directory at once, and wait until its packages are unlisted. Raises as `remove_file`."""
    away = _aside(repository)
    path = repository.path(location_href)
    os.rename(path, away)
    make_sure_of(os.path.dirname(path))
    answer = wait_for(repository.look(location_href))
    _discard(away)
    return answer


def move_file(repository: Served, source: str, target: str) -> Answer:
    """Give a file another name, with one rename; what had the name is replaced. Raises as `remove_file`."""
    path = repository.path(source)
    _refuse_link(path)
    fsync_file(path)
    return _give_name(repository, target, staged=path, departs=source)


def copy_file(repository: Served, source: str, target: str) -> Answer:
    """Copy a file; what had the name is replaced. Raises as `remove_file`."""
    staged = _aside(repository)
    try:
        shutil.copyfile(repository.path(source), staged)
        fsync_file(staged)
        return _give_name(repository, target, staged=staged, departs=None)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(staged)


def move_directory(repository: Served, source: str, target: str) -> Answer:
    """Give a directory another name; what had the name is replaced. Raises as `remove_file`."""
    path = repository.path(source)
    _refuse_link(path)
    answer = _rename_directory(repository, path, target)
    repository.look(source)
    return answer


def copy_directory(repository: Served, source: str, target: str, *, whole: bool) -> Answer:
    """Copy a directory, `whole` with what is in it. Raises as `remove_file`."""
    staged = _aside(repository)
    try:
        _copy_tree(repository.path(source), staged, whole=whole)
        return _rename_directory(repository, staged, target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _refuse_link(path: str) -> None:
    if os.path.islink(path):
        # Where a relative one leads would change, and the content is not what the client sees moving.
        raise Refusal(
            HTTPStatus.FORBIDDEN, f"{os.path.basename(path)} is a symbolic link, and stays where it is"
        )


def _give_name(repository: Served, target: str, *, staged: str, departs: str | None) -> Answer:
    inspection = None
    if repository.is_package_name(target) and (size := os.stat(staged).st_size):
        with open(staged, "rb", buffering=0) as stream:
            inspection = inspect(stream, size=size, checksum=repository.checksum)
    path = repository.path(target)
    if not os.path.isdir(path) or os.path.islink(path):
        return publish(repository, target, staged=staged, inspection=inspection, departs=departs)
    away = _aside(repository)
    os.rename(path, away)
    try:
        answer = publish(repository, target, staged=staged, inspection=inspection, departs=departs)
    except BaseException:
        os.rename(away, path)
        raise
    wait_for(repository.look(target))
    _discard(away)
    created = answer.status is HTTPStatus.CREATED
    return replace(answer, status=HTTPStatus.NO_CONTENT) if created else answer


def _rename_directory(repository: Served, path: str, target: str) -> Answer:
    """Give a directory its name, and wait until its packages are listed."""
    new_path = repository.path(target)
    away = _aside(repository)
    replaced = os.path.lexists(new_path)
    if replaced:
        os.rename(new_path, away)
    try:
        os.rename(path, new_path)
    except OSError:
        if replaced:
            os.rename(away, new_path)
        raise
    make_sure_of(os.path.dirname(new_path), os.path.dirname(path))
    answer = wait_for(repository.look(target))
    if replaced:
        _discard(away)
    created = answer.status is HTTPStatus.NO_CONTENT and not replaced
    return Answer(HTTPStatus.CREATED if created else answer.status, answer.revision, text=answer.text)


def _aside(repository: Served) -> str:
    """A new name in staging."""
    return os.path.join(repository.staging(), f"dav-{uuid.uuid4().hex}")


def _discard(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _copy_tree(source: str, target: str, *, whole: bool) -> None:
    """Copy a directory; all but its own name is durable then. FIFOs and the like stay out."""
    os.mkdir(target)
    with os.scandir(source) as entries:
        for entry in entries if whole else ():
            copy = os.path.join(target, entry.name)
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), copy)
            elif entry.is_dir():
                _copy_tree(entry.path, copy, whole=True)
            elif entry.is_file():
                shutil.copyfile(entry.path, copy)
                fsync_file(copy)
    fsync_directory(target)
