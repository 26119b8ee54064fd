"""A repository with a daemon that is made to suffer, and what it has promised."""

from __future__ import annotations

import hashlib
import http.client
import os
from collections.abc import Mapping
from pathlib import Path

from tests.kit.daemon import Answer, Daemon, repowatch, wait_until
from tests.kit.rpms import make_rpm
from tests.kit.views import Missing, View, from_disk, read_view

DONE = (201, 204)  # what promises that the change is durable and listed


def pkgid(path: Path) -> str | None:
    """The SHA-256 of a file; None where there is none."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


def packages_in(tree: Path) -> dict[str, str | None]:
    """The pkgids of the packages in a tree by location_href."""
    return {
        str(path.relative_to(tree)): pkgid(path)
        for path in tree.rglob("*.rpm")
        if ".repowatch" not in path.relative_to(tree).parts
    }


def assert_converged(tree: Path) -> None:
    """What is published is what the tree says, and nothing is left in staging."""
    assert read_view(from_disk(tree)).packages == packages_in(tree)
    assert os.listdir(tree / ".repowatch" / "staging") == []
    verified = repowatch("verify", tree)
    assert verified.returncode == 0, verified.stdout + verified.stderr


class Lane:
    """Changes a repository called rpm over HTTP, and remembers what may be on its disk after that."""

    def __init__(self, tree: Path, scratch: Path) -> None:
        self.tree = tree
        # Without a reserve, or no disk would ever be full.
        repository = f"repositories:\n  {tree.name}: {{path: {tree}}}\n"
        self.daemon = Daemon(scratch=scratch, configuration=f"limits: {{reserve: 0}}\n{repository}")
        self._made = scratch / "made"
        self.refusals: list[Answer] = []
        self._allowed: dict[str, set[str | None]] = {}  # pkgids by name, None: no such file

    def package(self, name: str, version: str = "1") -> Path:
        return make_rpm(self._made, name, version)

    def put(self, name: str, package: Path) -> Answer | None:
        """Upload it; None when the connection was cut off."""
        return self._change({name: pkgid(package)}, "PUT", name, body=package.read_bytes())

    def delete(self, name: str) -> Answer | None:
        return self._change({name: None}, "DELETE", name)

    def move(self, name: str, *, to: str) -> Answer | None:
        moved = {name: None, to: pkgid(self.tree / name)}
        return self._change(moved, "MOVE", name, headers={"Destination": f"{self.daemon.url}rpm/{to}"})

    def _change(
        self,
        wanted: Mapping[str, str | None],
        method: str,
        name: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer | None:
        for each, what in wanted.items():
            self._allowed.setdefault(each, {pkgid(self.tree / each)}).add(what)
        try:
            answer = self.daemon.request(method, f"/rpm/{name}", body, headers=headers)
        except (OSError, http.client.HTTPException):
            return None
        if answer.status in DONE:
            self._allowed.update({each: {what} for each, what in wanted.items()})
        else:
            self.refusals.append(answer)
        return answer

    def assert_kept(self, tree: Path | None = None) -> View | None:
        """The view on disk is whole, and each promise was kept, there and in the tree."""
        tree = tree or self.tree
        try:
            view = read_view(from_disk(tree))
        except Missing:
            assert not any(self._allowed.values()), "repomd.xml is gone"
            return None
        for name, allowed in self._allowed.items():
            found = pkgid(tree / name)
            assert found in allowed, f"{name} is {found}, and may be {allowed}"
            if len(allowed) == 1:
                assert view.packages.get(name) == found, f"{name} is not listed as it was promised"
        return view

    def is_up_to_date(self) -> bool:
        return read_view(from_disk(self.tree)).packages == packages_in(self.tree)

    def converge(self) -> None:
        """Wait until the daemon has brought metadata and tree together; then all is certain again."""
        wait_until(self.is_up_to_date, 15)
        for name in self._allowed:
            self._allowed[name] = {pkgid(self.tree / name)}
