"""The gate for tests that need an outside program, and the table of how each program fared.

A test declares its programs with `@pytest.mark.client("dnf", "curl")`. Where one is missing, the test is
skipped on a desk and fails in CI; in CI a skip of any kind makes the run red, since a check that nobody runs
protects nothing.
"""

import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

CLIENTS = frozenset(
    {
        "apache2",
        "cadaver",
        "createrepo_c",
        "curl",
        "dnf",
        "gpg",
        "gpgv",
        "litmus",
        "modulemd-validator",
        "nginx",
        "rclone",
        "rpm",
        "rpmbuild",
        "rpmsign",
        "rsync",
        "strace",
        "wget",
        "zypper",
    }
)

# In this order, so that a test that passed and then failed in its teardown counts as failed.
_OUTCOMES = {
    "passed": "passed",
    "xfailed": "passed",
    "xpassed": "passed",
    "skipped": "skipped",
    "failed": "failed",
    "error": "failed",
}


def in_ci() -> bool:
    """Whether nobody is at hand to read a skip: the environment variable CI is not empty."""
    return bool(os.environ.get("CI"))


def locate(client: str) -> Path | None:
    """The program's path, or None where it is missing.

    createrepo_c is the command line of the binding that the daemon imports, which lies next to the
    interpreter: the system's own may be of another version.
    """
    search_path = str(Path(sys.executable).parent) if client == "createrepo_c" else None
    found = shutil.which(client, path=search_path)
    return Path(found) if found else None


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "client(*names): programs the test needs; a missing one skips it on a desk and fails it in CI",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.user_properties += [("client", client) for client in _needed(item)]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    missing = [client for client in _needed(item) if locate(client) is None]
    if not missing:
        return
    reason = f"not installed: {', '.join(missing)}"
    if in_ci():
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if in_ci() and _skipped(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    table = _table(terminalreporter.stats)
    if table:
        terminalreporter.section("clients")
        for line in table:
            terminalreporter.write_line(line)
    if in_ci() and (skipped := _skipped(config)):
        terminalreporter.section("red, because a skip in CI is a failure")
        for report in skipped:
            terminalreporter.write_line(f"{report.nodeid}: {_reason(report)}")


def _needed(item: pytest.Item) -> list[str]:
    needed = sorted({name for marker in item.iter_markers("client") for name in marker.args})
    unknown = [name for name in needed if name not in CLIENTS]
    if unknown:
        raise pytest.UsageError(
            f"{item.nodeid}: no such client: {', '.join(unknown)}; known are {', '.join(sorted(CLIENTS))}"
        )
    return needed


def _skipped(config: pytest.Config) -> list[pytest.TestReport | pytest.CollectReport]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return list(reporter.stats.get("skipped", [])) if reporter else []


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)


def _table(stats: Mapping[str, list[Any]]) -> list[str]:
    counts: dict[str, Counter[str]] = {}
    for clients, outcome in _fates(stats):
        for client in clients:
            counts.setdefault(client, Counter())[outcome] += 1
    if not counts:
        return []
    rows = [f"{'client':<14}{'run':>8}{'passed':>8}{'failed':>8}{'skipped':>8}"]
    for client, count in sorted(counts.items()):
        run = count["passed"] + count["failed"]
        rows.append(f"{client:<14}{run:>8}{count['passed']:>8}{count['failed']:>8}{count['skipped']:>8}")
    return rows


def _fates(stats: Mapping[str, list[Any]]) -> Iterable[tuple[list[str], str]]:
    """Each test once: the clients it needs and what became of it."""
    fates = {}
    for category, outcome in _OUTCOMES.items():
        for report in stats.get(category, []):
            if isinstance(report, pytest.TestReport):
                clients = [str(name) for key, name in report.user_properties if key == "client"]
                fates[report.nodeid] = (clients, outcome)
    return fates.values()
