"""What the daemon says of itself: the front page, the JSON status, health, and `.repo` files."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from repowatch.web.names import href_of
from repowatch.web.served import Served

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark"><title>repowatch</title>
<style>body{{font-family:sans-serif;margin:1em auto;max-width:60em;padding:0 1em}}
table{{border-collapse:collapse;width:100%}}
th,td{{text-align:left;padding:.2em .6em .2em 0;vertical-align:top}}
code{{overflow-wrap:anywhere}}</style></head><body>
<h1>Package repositories</h1>
{repositories}
</body></html>
"""

_REPOSITORY = """<h2><a href="{link}">{name}</a></h2>
<p>{packages} packages{unchecked}, revision {revision}, published {published}{trouble}</p>
<p><a href="/{repo_link}">{name}.repo</a>:
<code>curl -o /etc/yum.repos.d/{name}.repo {base}/{repo_link}</code></p>
<p>Upload: <code>curl -T FILE.rpm {base}{link}</code></p>
{rejected}"""


def front_page(repositories: Sequence[Served], *, base_url: str) -> bytes:
    """The page for people at `/`."""
    sections = "\n".join(_section(repository.status(), repository, base_url) for repository in repositories)
    return _PAGE.format(repositories=sections).encode("utf-8", "backslashreplace")


def _section(status: dict[str, Any], repository: Served, base_url: str) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(row['location'])}</code></td><td>{escape(row['reason'])}</td></tr>"
        for row in status["rejected"]
    )
    published = status["published_at"]
    return _REPOSITORY.format(
        name=escape(repository.name),
        link=href_of(repository.url),
        repo_link=href_of(f"{repository.name}.repo"),
        base=escape(base_url),
        packages=status["packages"],
        revision=status["revision"],
        published=datetime.fromtimestamp(published, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        if published
        else "not yet",
        unchecked=f", {status['unchecked']} of them to be checked" if status["unchecked"] else "",
        trouble=f" &mdash; <strong>{escape(status['trouble'])}</strong>" if status["trouble"] else "",
        rejected=f"<h3>Not listed</h3><table>{rows}</table>" if rows else "",
    )


def as_json(repositories: Sequence[Served], *, version: str) -> dict[str, Any]:
    """The JSON status: what `repowatch status` shows."""
    return {"version": version, "repositories": [repository.status() for repository in repositories]}


def trouble(repositories: Sequence[Served], *, ready: bool) -> list[str]:
    """Why clients may not see what is in the trees, a line each; empty when all is well.

    Readiness asks for a first publication as well.
    """
    lines = []
    for repository in repositories:
        reason = repository.health()
        if reason is None and ready and repository.publication() is None:
            reason = "the first index is not finished"
        if reason is not None:
            lines.append(f"{repository.name}: {reason}")
    return lines


def repo_file(repository: Served, *, base_url: str) -> str:
    """A file for /etc/yum.repos.d (dnf.conf(5), zypper reads the same)."""
    return (
        f"[{repository.name}]\n"
        f"name={repository.name}\n"
        f"baseurl={base_url}{href_of(repository.url)}\n"
        "enabled=1\n"
        "gpgcheck=0\n"
        "metadata_expire=60\n"
    )
