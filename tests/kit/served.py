"""A repository as the doors see it, of which nothing but a tree of files is there."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from repowatch.model.publication import Listed
from repowatch.web.served import Served


def serve(root: Path, *, may_lead_to: Callable[[str], bool] = lambda path: False) -> Served:
    """No name is that of a package, and every look finds nothing new. Its URL needs an escape."""
    looked: Future[Listed] = Future()
    looked.set_result(Listed(1, replaced=False))
    return Served(
        name="rpm",
        url="/r pm/",
        root=os.path.realpath(root),
        staging=lambda: str(root),
        is_local=lambda: True,
        reserve=0,
        replace=True,
        is_package_name=lambda name: False,
        may_lead_to=lambda path: path.startswith(os.path.realpath(root)) or may_lead_to(path),
        publication=lambda: None,
        expect=lambda: lambda: None,
        admit=lambda *arguments, **named: looked,
        remove=lambda *arguments, **named: looked,
        look=lambda name: looked,
        health=lambda: None,
        status=dict,
    )
