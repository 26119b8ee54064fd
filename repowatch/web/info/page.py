"""The pages for people about the repositories: how they are, what came last, how to use them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from repowatch.model.units import in_units
from repowatch.web.info.api import LONGEST_PATTERN, MOST_FOUND, Query
from repowatch.web.info.clients import repo_id, script_path
from repowatch.web.info.listing import STYLE, date, printable
from repowatch.web.names import href_of
from repowatch.web.replies import Headers

# A page that runs nothing and fetches nothing, whatever a package is called (CSP level 3).
HEADERS: Headers = [
    (
        "Content-Security-Policy",
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
]

SHOWN_REJECTED = 200  # the JSON has all of them

_STYLE = """\
:root{--bad:#b00020;--good:#1b7f3b;--box:#f4f4f4}
@media(prefers-color-scheme:dark){:root{--bad:#ff8a80;--good:#7bd88f;--box:#1d1d1d}}
h2{font-size:1.05rem;margin:1.5rem 0 .3rem;overflow-wrap:anywhere}
h1+p,h2+p{margin-top:0}
p{margin:.4rem 0;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;margin:.6rem 0}
dt{color:var(--dim)}
dd{margin:0;overflow-wrap:anywhere}
pre{background:var(--box);padding:.5rem .7rem;border-radius:.3rem;margin:.3rem 0;overflow-x:auto}
th{text-align:left;font-weight:normal;color:var(--dim);padding:.2rem 0 .2rem 1rem}
th:first-child{padding-left:0}
td{vertical-align:top}
.rows td:first-child{color:inherit;min-width:12rem}
.rows td:nth-child(2){white-space:normal;overflow-wrap:anywhere}
.bad{color:var(--bad);font-weight:bold}
.good{color:var(--good)}
.dim{color:var(--dim)}
form{margin:.4rem 0}
label{margin-right:1rem;white-space:nowrap}
input,button{font:inherit;max-width:100%}
footer{margin-top:2rem;color:var(--dim);font-size:.9rem}
@media(max-width:40rem){
table.rows,.rows tbody,.rows tr{display:block}
.rows tr:first-child:has(th){display:none}
.rows tr{border-top:1px solid var(--line);padding:.3rem 0}
.rows td{display:inline;border:0;padding:0 .7rem 0 0;white-space:normal;overflow-wrap:anywhere}
.rows td:first-child{display:block}
}
"""

_MARKS = {"added": "+", "replaced": "±", "removed": "−"}


def front(
    told: Sequence[dict[str, Any]], *, not_served: Sequence[Mapping[str, Any]] = (), version: str
) -> bytes:
    """The page at `/`: what the JSON status says of each repository, in short."""
    sections = [_summary(each) for each in told]
    if not sections:
        sections = ["<p>There is no repository that you may read.</p>\n"]
    if not_served:
        rows = ((_text(each["path"]), _text(each["reason"])) for each in not_served)
        sections.append(f"<h2>Not served</h2>\n{_table(('directory', 'why'), rows)}")
    return _page("Package repositories", "".join(sections), version=version)


def repository(
    told: Mapping[str, Any], query: Query, *, base_url: str, repo_file: str, version: str
) -> bytes:
    """The page at `/-/<name>`: what the JSON says of one repository, with `found` where it was searched."""
    name = _text(told["name"])
    parts = [
        f'<p><a href="{_about(told)}">status</a> · <a href="{_url(told)}">packages</a> · '
        f'<a href="/">all repositories</a></p>\n',
        _facts(told),
        _how_to(told, base_url=base_url, repo_file=repo_file),
        _search(told, query),
        _snapshots(told),
        _rejected(told["rejected"]),
        _notices(told),
        _history(told["history"]),
    ]
    return _page(name, "".join(parts), version=version)


def _page(title: str, body: str, *, version: str) -> bytes:
    """`title` and `body` are escaped already."""
    text = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{STYLE}{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        f"{body}<footer>repowatch {_text(version)} · all times in UTC</footer>\n</body>\n</html>\n"
    )
    return text.encode()


def _summary(told: Mapping[str, Any]) -> str:
    rejected = len(told["rejected"])
    more = f" · {rejected:,} not listed" if rejected else ""
    return (
        f'<h2><a href="{_about(told)}">{_text(told["name"])}</a></h2>\n'
        f"<p>{_health(told)}</p>\n"
        f"<p>{_counted(told)} · {_published(told)}{more}</p>\n"
        f'<p><a href="{_url(told)}">packages</a> · <a href="{_repo_file(told)}">'
        f"{_text(told['name'])}.repo</a></p>\n"
    )


def _health(told: Mapping[str, Any]) -> str:
    if told["trouble"]:
        return f'<span class="bad">Trouble: {_text(told["trouble"])}</span>'
    if told["reading"]["total"]:
        return "reading {done:,} of {total:,} files".format(**told["reading"])
    return '<span class="good">up to date</span>' if told["revision"] else "not published yet"


def _counted(told: Mapping[str, Any]) -> str:
    one = "package" if told["packages"] == 1 else "packages"
    return f"{told['packages']:,} {one}, {in_units(told['size'])}"


def _published(told: Mapping[str, Any]) -> str:
    if told["published_at"] is None:
        return "not published yet"
    return f"revision {told['revision']}, {date(told['published_at'])}"


def _facts(told: Mapping[str, Any]) -> str:
    seconds = told["publication_seconds"]
    took = "" if seconds is None else f", made in {_duration(seconds)}"
    rows = [
        ("state", _health(told)),
        ("packages", _counted(told)),
        ("published", f"{_published(told)}{took}"),
        ("uploads in hand", f"{told['uploads']:,}"),
        ("changes waiting", f"{told['waiting']:,}" if told["waiting"] else ""),
        ("to be checked", f"{told['unchecked']:,}" if told["unchecked"] else ""),
        ("batches", _batches(told)),
        ("beside packages", _companions(told)),
        ("disk left", "unknown" if told["disk_free"] is None else in_units(told["disk_free"])),
        ("pruning", _pruning(told.get("pruning"))),
        ("watched by", _text(told["watcher"])),
        ("signed by", _signers(told)),
    ]
    items = "".join(f"<dt>{label}</dt><dd>{value}</dd>\n" for label, value in rows if value)
    return f"<dl>\n{items}</dl>\n"


def _companions(told: Mapping[str, Any]) -> str:
    """Groups, modules, advisories: where each comes from, and what of it is not as it should be."""
    lines = []
    for each in told.get("companions", ()):
        state = "" if each["state"] == "published" else f' <span class="bad">{_text(each["state"])}</span>'
        names = ", ".join(map(_text, each["unlisted"][:3]))
        more = f' <span class="dim">names what is not listed: {names}</span>' if names else ""
        lines.append(f"{_text(each['location'])} ({_text(each['type'])}){state}{more}")
    return "<br>\n".join(lines[:SHOWN_REJECTED])


def _batches(told: Mapping[str, Any]) -> str:
    """What waits for a commit."""
    return "<br>".join(
        f"{_text(each['batch'])} by {_text(each['who'] or 'anonymous')}, changes: {each['files']:,}, "
        f"{in_units(each['bytes'])}, since {date(each['began_at'])}"
        for each in told.get("batches", ())
    )


def _signers(told: Mapping[str, Any]) -> str:
    """The fingerprints, each a link to its key: people compare them with those that they were told."""
    signing = told.get("signing")
    if signing is None or signing["signed_at"] is None:
        return ""
    keys = (each["fingerprint"] for each in signing["keys"])
    return "<br>".join(f'<a href="{_url(told)}repodata/{key}.key"><code>{key}</code></a>' for key in keys)


def _pruning(pruning: Mapping[str, Any] | None) -> str:
    """Nothing where no rule is configured and nothing is left of one."""
    if pruning is None or not (pruning["rules"] or pruning["retired"]):
        return ""
    parts = []
    if pruning["retired"]:
        parts.append(f"{pruning['retired']:,} retired are still served, {in_units(pruning['retired_size'])}")
    if pruning["last_at"] is not None:
        parts.append(f"last pruned {pruning['last_packages']:,}, {date(pruning['last_at'])}")
    if pruning["paused"]:
        parts.append(_text(pruning["paused"]))
    return "; ".join(parts) or "nothing pruned yet"


def _how_to(told: Mapping[str, Any], *, base_url: str, repo_file: str) -> str:
    name, target = _text(repo_id(told["name"])), _text(_word(f"{base_url}{_repo_file(told)}"))
    url = _text(_word(f"{base_url}{href_of(told['url'])}"))
    script = _text(_word(f"{base_url}{script_path(told['name'])}"))
    return (
        "<h2>How to use it</h2>\n"
        f"<pre>curl -fsS {script} | sudo sh</pre>\n"
        f"<p>does one of these, whichever the host needs:</p>\n"
        f"<pre>curl -fo /etc/yum.repos.d/{name}.repo {target}\n"
        f"zypper addrepo {target}</pre>\n"
        f"<p>For one command, without a file:</p>\n"
        f"<pre>dnf --repofrompath={name},{url} --nogpgcheck --repo={name} install PACKAGE</pre>\n"
        f"<p>To upload; it is answered when dnf can install it:</p>\n"
        f"<pre>curl -fT FILE.rpm {url}</pre>\n"
        f'<details><summary><a href="{_repo_file(told)}">{_text(told["name"])}.repo</a></summary>\n'
        f"<pre>{_text_lines(repo_file)}</pre></details>\n"
    )


def _search(told: Mapping[str, Any], query: Query) -> str:
    days = "" if query.days is None else f"{query.days:g}"
    form = (
        "<h2>Latest packages</h2>\n"
        f'<form method="get" action="{_about(told)}">\n'
        f'<label>called <input name="match" size="16" maxlength="{LONGEST_PATTERN}" placeholder="*.rpm" '
        f'value="{_text(query.match)}"></label>\n'
        f'<label>of the last <input name="days" size="4" inputmode="decimal" placeholder="7" '
        f'value="{days}"> days</label>\n<button>Show</button>\n</form>\n'
    )
    if not query.is_search:
        return form
    found = told["found"]
    if not found:
        return f"{form}<p>No listed package is like this.</p>\n"
    note = f"<p>The last {MOST_FOUND}; there may be more.</p>\n" if len(found) == MOST_FOUND else ""
    rows = (
        (_link(told, each["location"], each["nevra"]), in_units(each["size"]), date(each["modified_at"]))
        for each in found
    )
    return f"{form}{note}{_table(('package', 'size', 'modified'), rows)}"


def _snapshots(told: Mapping[str, Any]) -> str:
    snapshots = told.get("snapshots", {"list": (), "damaged": ()})
    rows = [
        (
            f'<a href="{escape(href_of(_above(told) + each["name"]))}/">{_text(each["name"])}</a>',
            f"{each['packages']:,} packages, {in_units(each['size'])}",
            f"revision {each['revision']}, {date(each['created_at'])}",
            _text(each["by"] or "anonymous"),
        )
        for each in reversed(snapshots["list"])
    ]
    rows += [
        (_text(each["name"]), f'<span class="bad">damaged: {_text(each["reason"])}</span>', "", "")
        for each in snapshots["damaged"]
    ]
    if not rows:
        return ""
    extra = in_units(snapshots["extra_size"])
    heads = ("snapshot", "keeps", "published", "by")
    return f"<h2>Snapshots</h2>\n<p>{extra} beyond the tree</p>\n{_table(heads, rows)}"


def _above(told: Mapping[str, Any]) -> str:
    """What stands before the name of a snapshot in its URL."""
    return f"{told['url'].rstrip('/') or '/'}@"


def _rejected(rejected: Sequence[Mapping[str, Any]]) -> str:
    if not rejected:
        return ""
    rows = ((_text(each["location"]), _text(each["reason"])) for each in rejected[:SHOWN_REJECTED])
    more = len(rejected) - SHOWN_REJECTED
    note = f"<p>and {more:,} more</p>\n" if more > 0 else ""
    return f"<h2>Not listed</h2>\n{_table(('file', 'why'), rows)}{note}"


def _notices(told: Mapping[str, Any]) -> str:
    """What is listed and worth a look all the same."""
    rows = [
        (_text(each["location"]), f"replaced by file, {date(each['at'])}")
        for each in told.get("replaced", ())
    ]
    rows += [
        (_text(each["nevra"]), f"is in several files: {_text(', '.join(each['locations']))}")
        for each in told.get("duplicates", ())
    ]
    rows += [(_text(each["location"]), _text(each["hint"])) for each in told.get("hints", ())]
    if not rows:
        return ""
    more = told.get("duplicated", 0) + told.get("hinted", 0) + len(told.get("replaced", ())) - len(rows)
    note = f"<p>and {more:,} more</p>\n" if more > 0 else ""
    return f"<h2>Worth a look</h2>\n{_table(('package', 'what'), rows)}{note}"


def _history(history: Sequence[Mapping[str, Any]]) -> str:
    if not history:
        return "<h2>Last changes</h2>\n<p>None yet.</p>\n"
    rows = (
        (
            f"{_MARKS.get(each['change'], '?')} {_text(each['nevra'])} "
            f'<span class="dim">{_text(each["change"])}</span>',
            _who(each),
            f"{date(each['at'])}",
            f"revision {each['revision']}",
        )
        for each in history
    )
    return f"<h2>Last changes</h2>\n{_table(('package', 'by', 'when', ''), rows)}"


def _who(event: Mapping[str, Any]) -> str:
    if event["how"] in ("file", "prune"):
        return "by file" if event["how"] == "file" else "by a rule of pruning"
    return _text(event["who"]) if event["who"] else "anonymous"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of cells that are escaped already."""
    first = "".join(f"<th>{each}</th>" for each in heads)
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in rows)
    return f'<table class="rows">\n<tr>{first}</tr>\n{lines}</table>\n'


def _link(told: Mapping[str, Any], location: str, label: str) -> str:
    return f'<a href="{escape(href_of(told["url"] + location))}">{_text(label)}</a>'


def _about(told: Mapping[str, Any]) -> str:
    return escape(href_of(f"/-/{told['name']}"))


def _url(told: Mapping[str, Any]) -> str:
    return escape(href_of(told["url"]))


def _repo_file(told: Mapping[str, Any]) -> str:
    return escape(href_of(f"/{told['name']}.repo"))


def _text(text: str) -> str:
    """What came from a package, a file name or a user, for any place in a page."""
    return escape(printable(text))


def _text_lines(text: str) -> str:
    return "\n".join(map(_text, text.splitlines()))


def _word(text: str) -> str:
    """A word of a shell's command line."""
    return shlex.quote(printable(text))


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
