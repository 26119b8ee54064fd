"""The numbers at /metrics move with what is done to a real daemon, each by what it should and no other."""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from tests.clients.conftest import run
from tests.kit.certificates import Authority
from tests.kit.daemon import Answer, Daemon, wait_until
from tests.kit.doors import ready_urls
from tests.kit.keyrings import Keyring
from tests.kit.machine import launched_by, stopped, with_limits
from tests.kit.rpms import flip_byte, make_rpm
from tests.kit.users import basic, write_users

ALERTS = Path(__file__).parents[2] / "conf" / "alerts.yaml"
QUEUE = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())

MOST = 1 << 20  # bytes of an upload

# What moves by itself, or because a scrape is a request as well.
RESTLESS = (
    "process_",
    "repowatch_last_success",
    "repowatch_disk_",
    "repowatch_requests",
    "repowatch_connections",
)
# What moves with each publication and each package that is listed.
SECONDS = ("repowatch_publication_seconds", "repowatch_arrival_to_listed_seconds")

Key = tuple[str, frozenset[tuple[str, str]]]


def key(name: str, **labels: str) -> Key:
    return f"repowatch_{name}", frozenset(labels.items())


def values_of(text: str) -> dict[Key, float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse(text)
        for sample in family.samples
    }


@dataclass(frozen=True, slots=True)
class Shop:
    """A daemon with a repository called rpm."""

    daemon: Daemon
    root: Path

    def read(self, name: str, **labels: str) -> float:
        """One value now. Raises KeyError where there is none."""
        return self.all()[key(name, **labels)]

    def of_rpm(self, name: str) -> float:
        return self.read(name, repository="rpm")

    def all(self) -> dict[Key, float]:
        answer = self.daemon.get("/metrics")
        assert answer.status == 200
        return values_of(answer.text)

    def put(self, name: str, content: bytes | Path, **fields: str) -> int:
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        return self.daemon.put(f"/rpm/{name}", content, headers=headers).status


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """One for all tests that look at differences; each uses names of its own."""
    tmp_path = tmp_path_factory.mktemp("shop")
    (tmp_path / "rpm").mkdir()
    configuration = f"max_upload: {MOST}\nrepositories: {{rpm: {{path: {tmp_path}/rpm}}}}"
    with Daemon(scratch=tmp_path / "scratch", configuration=configuration) as daemon:
        yield Shop(daemon, tmp_path / "rpm")


def moved(before: Mapping[Key, float], after: Mapping[Key, float]) -> dict[Key, float]:
    """By how much what moved, but for what is restless and the buckets and sums."""
    return {
        each: after[each] - before.get(each, 0)
        for each in after
        if after[each] != before.get(each, 0) and not each[0].startswith(RESTLESS + SECONDS)
    }


ARRIVALS = key("arrival_to_listed_seconds_count", repository="rpm")
PUBLICATIONS = key("publications_total", repository="rpm")
WAITED = key("arrival_to_listed_seconds_sum", repository="rpm")


def await_arrivals(shop: Shop, before: Mapping[Key, float], count: int) -> dict[Key, float]:
    """Wait until so many packages more are counted, a moment after the answer; all values then."""
    wait_until(lambda: shop.all()[ARRIVALS] == before[ARRIVALS] + count)
    return shop.all()


def waited(before: Mapping[Key, float], after: Mapping[Key, float]) -> float:
    """Seconds that the packages waited together that were listed in between."""
    return after[WAITED] - before[WAITED]


def upload(result: str, size: int, **others: float) -> dict[Key, float]:
    """What moves with one upload; `others`, of the repository."""
    expected: dict[Key, float] = {key("uploads_total", result=result): 1}
    if size:
        expected[key("upload_bytes_total", result=result)] = size
    return expected | {key(name, repository="rpm"): value for name, value in others.items()}


# -- uploads ---------------------------------------------------------------------------------------


def test_a_package_that_comes_by_put_moves_what_it_should_and_nothing_else(
    shop: Shop, tmp_path: Path
) -> None:
    package = make_rpm(tmp_path)
    before, began = shop.all(), time.monotonic()
    assert shop.put("new.rpm", package) == 201
    took = time.monotonic() - began
    after = await_arrivals(shop, before, 1)
    assert moved(before, after) == upload("done", package.stat().st_size, packages=1, publications_total=1)
    for name in SECONDS:
        count, total = key(f"{name[10:]}_count", repository="rpm"), key(f"{name[10:]}_sum", repository="rpm")
        assert after[count] - before[count] == 1
        assert 0 < after[total] - before[total] < took


def test_the_same_package_again_is_an_upload_and_no_publication(shop: Shop, tmp_path: Path) -> None:
    package = make_rpm(tmp_path)
    before = shop.all()
    shop.put("same.rpm", package)
    before = await_arrivals(shop, before, 1)
    assert shop.put("same.rpm", package) == 204
    assert moved(before, shop.all()) == upload("done", package.stat().st_size)


def test_a_file_that_is_no_package_is_an_upload_and_no_publication(shop: Shop) -> None:
    before = shop.all()
    assert shop.put("notes.txt", b"x" * 1000) == 201
    assert moved(before, shop.all()) == upload("done", 1000)


def test_a_damaged_upload_is_bad_and_not_among_the_rejected(shop: Shop, tmp_path: Path) -> None:
    package = make_rpm(tmp_path)
    flip_byte(package, offset=package.stat().st_size - 1)
    before = shop.all()
    assert shop.put("hello.rpm", package) == 422
    assert moved(before, shop.all()) == upload("bad", package.stat().st_size)


def test_an_upload_that_is_too_large_brings_no_bytes(shop: Shop) -> None:
    before = shop.all()
    assert shop.put("large.txt", b"x" * (MOST + 1)) == 413
    assert moved(before, shop.all()) == upload("too_large", 0)


def test_an_upload_whose_condition_does_not_hold_is_a_conflict(shop: Shop) -> None:
    shop.put("one.txt", b"one")
    before = shop.all()
    assert shop.put("one.txt", b"two", If_None_Match="*") == 412
    assert moved(before, shop.all()) == upload("conflict", 0)


def test_an_upload_that_wants_no_answer_in_time_is_later_and_listed_all_the_same(
    shop: Shop, tmp_path: Path
) -> None:
    package = make_rpm(tmp_path)
    before = shop.all()
    assert shop.put("later.rpm", package, Prefer="respond-async") == 202
    await_arrivals(shop, before, 1)
    expected = upload("later", package.stat().st_size, packages=1, publications_total=1)
    assert moved(before, shop.all()) == expected


def test_an_upload_is_in_hand_while_it_comes_and_cut_when_its_client_goes(shop: Shop) -> None:
    before = shop.all()
    with socket.create_connection(shop.daemon.address, timeout=10) as client:
        client.sendall(
            b"PUT /rpm/cut.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + b"x" * 40_000
        )
        wait_until(lambda: shop.read("uploads_in_hand") == 1)
    wait_until(lambda: shop.read("uploads_in_hand") == 0)
    assert moved(before, shop.all()) == upload("cut", 40_000)


def test_an_upload_that_the_disk_has_no_room_for_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "rpm").mkdir()
    configuration = f"limits: {{reserve: 1000TiB}}\nrepositories: {{rpm: {{path: {tmp_path}/rpm}}}}"
    with Daemon(scratch=tmp_path / "scratch", configuration=configuration) as daemon:
        shop = Shop(daemon, tmp_path / "rpm")
        before = shop.all()
        assert shop.put("hello.txt", b"hello") == 507
        assert moved(before, shop.all()) == upload("no_space", 0)


# -- what lies in the tree -------------------------------------------------------------------------


def test_a_package_that_is_dropped_into_the_tree_is_counted_with_its_wait(shop: Shop, tmp_path: Path) -> None:
    package = make_rpm(tmp_path)
    before, began = shop.all(), time.monotonic()
    shutil.copy(package, shop.root / "dropped.rpm")
    after = await_arrivals(shop, before, 1)
    assert moved(before, after) == {
        key("packages", repository="rpm"): 1,
        key("publications_total", repository="rpm"): 1,
    }
    # It is left alone for 0.2 s before it is read; the kernel's clock for ctime ticks every few ms.
    assert 0.15 < waited(before, after) < time.monotonic() - began


def test_old_packages_that_are_moved_in_with_their_directory_have_not_waited_before(
    shop: Shop, tmp_path: Path
) -> None:
    for name in "abc":
        make_rpm(tmp_path / "batch", name)
    newest = max(path.stat().st_ctime for path in (tmp_path / "batch").iterdir())
    wait_until(lambda: time.time() > newest + 2)
    before, began = shop.all(), time.monotonic()
    os.rename(tmp_path / "batch", shop.root / "batch")
    after = await_arrivals(shop, before, 3)
    assert waited(before, after) < 3 * (time.monotonic() - began)


def test_what_lies_there_at_the_start_has_not_waited(tmp_path: Path) -> None:
    make_rpm(tmp_path / "rpm")
    with Daemon(tmp_path / "rpm", scratch=tmp_path / "scratch") as daemon:
        shop = Shop(daemon, tmp_path / "rpm")
        wait_until(lambda: shop.of_rpm("packages") == 1)
        assert shop.of_rpm("arrival_to_listed_seconds_count") == 0
        assert shop.of_rpm("publications_total") == 1


def test_a_file_that_can_not_be_listed_is_rejected_until_it_is_gone(shop: Shop) -> None:
    (shop.root / "broken.rpm").write_bytes(b"no package")
    packages = shop.of_rpm("packages")
    wait_until(lambda: shop.of_rpm("rejected") == 1)
    assert shop.of_rpm("packages") == packages
    (shop.root / "broken.rpm").unlink()
    wait_until(lambda: shop.of_rpm("rejected") == 0)


def test_a_package_that_is_deleted_is_a_publication_and_no_arrival(shop: Shop, tmp_path: Path) -> None:
    before = shop.all()
    shop.put("short.rpm", make_rpm(tmp_path))
    before = await_arrivals(shop, before, 1)
    assert shop.daemon.request("DELETE", "/rpm/short.rpm").status == 204
    wait_until(lambda: shop.of_rpm("publications_total") > before[PUBLICATIONS])
    after = shop.all()
    assert moved(before, after) == {
        key("packages", repository="rpm"): -1,
        key("publications_total", repository="rpm"): 1,
    }
    assert after[ARRIVALS] == before[ARRIVALS]


def test_the_time_of_the_last_success_goes_on_while_nothing_changes(shop: Shop) -> None:
    last = shop.of_rpm("last_success_timestamp_seconds")
    assert abs(time.time() - last) < 15
    wait_until(lambda: shop.of_rpm("last_success_timestamp_seconds") > last, 20)


def test_a_repository_that_is_away_is_not_healthy_and_its_disk_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "rpm").mkdir()
    with Daemon(tmp_path / "rpm", scratch=tmp_path / "scratch") as daemon:
        shop = Shop(daemon, tmp_path / "rpm")
        os.rename(shop.root, tmp_path / "elsewhere")
        wait_until(lambda: shop.of_rpm("healthy") == 0, 20)
        shown = shop.all()
        assert shown[key("publication_failures_total", repository="rpm")] > 0
        assert key("disk_free_bytes", repository="rpm") not in shown
        os.rename(tmp_path / "elsewhere", shop.root)
        wait_until(lambda: shop.of_rpm("healthy") == 1, 40)


def test_the_disk_is_that_of_the_repository(shop: Shop) -> None:
    status = os.statvfs(shop.root)
    assert shop.of_rpm("disk_size_bytes") == status.f_blocks * status.f_frsize
    assert abs(shop.of_rpm("disk_free_bytes") - status.f_bavail * status.f_frsize) < 1 << 30


def test_events_that_the_kernel_dropped_are_counted_where_they_were_dropped(tmp_path: Path) -> None:
    for name in ("rpm", "calm"):
        (tmp_path / name).mkdir()
    with Daemon(tmp_path / "rpm", tmp_path / "calm", scratch=tmp_path / "scratch") as daemon:
        shop = Shop(daemon, tmp_path / "rpm")
        assert shop.of_rpm("overflows_total") == 0
        with stopped(daemon.pid):
            for number in range(QUEUE // 2):
                path = tmp_path / "rpm" / f"{number}.rpm"
                path.touch()
                path.unlink()
        wait_until(lambda: shop.of_rpm("overflows_total") == 1, 30)
        assert shop.read("overflows_total", repository="calm") == 0


def test_the_way_that_a_tree_is_watched_is_told(shop: Shop) -> None:
    assert shop.read("watcher_mode", repository="rpm", mode="inotify") == 1
    assert shop.read("watcher_mode", repository="rpm", mode="polling") == 0


def test_a_tree_that_can_not_be_watched_is_told_as_polled(tmp_path: Path) -> None:
    (tmp_path / "rpm").mkdir()
    with (
        launched_by(*with_limits(max_inotify_instances=0)),
        Daemon(tmp_path / "rpm", scratch=tmp_path / "scratch") as daemon,
    ):
        shop = Shop(daemon, tmp_path / "rpm")
        assert shop.read("watcher_mode", repository="rpm", mode="inotify") == 0
        assert shop.read("watcher_mode", repository="rpm", mode="polling") == 1


# -- requests and connections ----------------------------------------------------------------------


def test_requests_are_counted_by_method_and_code(shop: Shop) -> None:
    shop.put("notes.txt", b"x")
    for _ in range(3):
        assert shop.daemon.get("/rpm/notes.txt").status == 200
    wait_until(lambda: (shop.root / "notes.txt").stat().st_ctime < time.time() - 3)
    before = shop.all()
    for _ in range(5):  # of which the later ones are kept answers
        assert shop.daemon.get("/rpm/notes.txt").status == 200
    for method, path in (
        ("GET", "/rpm/nothing"),
        ("HEAD", "/rpm/nothing"),
        ("BREW", "/rpm/"),
        ("MKCOL", "/rpm/d"),
    ):
        shop.daemon.request(method, path)
    with socket.create_connection(shop.daemon.address, timeout=10) as client:
        client.sendall(b"nonsense\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 400")
    after = shop.all()
    by = {
        tuple(dict(labels)[name] for name in ("method", "code")): after[each, labels]
        - before.get((each, labels), 0)
        for each, labels in after
        if each == "repowatch_requests_total"
    }
    # A scrape is counted before its answer is sent, and shown by the next one.
    expected = {
        ("GET", "200"): 5 + 1,
        ("GET", "404"): 1,
        ("HEAD", "404"): 1,
        ("MKCOL", "201"): 1,
        ("other", "400"): 1,
    }
    [(brewed, once)] = ((each, by[each]) for each in by if each[0] == "other" and each[1] != "400")
    assert (brewed[1][0], once) in {("4", 1), ("5", 1)}
    assert {each: count for each, count in by.items() if count and each != brewed} == expected


def test_open_connections_are_counted(shop: Shop) -> None:
    clients = [socket.create_connection(shop.daemon.address, timeout=10) for _ in range(7)]
    wait_until(lambda: shop.read("connections") == 7 + 1)
    for client in clients:
        client.close()
    wait_until(lambda: shop.read("connections") == 1)


# -- who may read, and how -------------------------------------------------------------------------


def test_who_may_read_every_repository_may_read_the_metrics_and_nobody_else(tmp_path: Path) -> None:
    for name in ("open", "closed"):
        (tmp_path / name).mkdir()
    write_users(tmp_path / "users", {"anna": "secret-of-anna", "ben": "secret-of-ben"})
    configuration = f"""
users: {tmp_path}/users
auth_over_http: true
repositories:
  open: {{path: {tmp_path}/open}}
  closed: {{path: {tmp_path}/closed, read: [anna]}}
"""

    def scrape(headers: dict[str, str] | None = None) -> Answer:
        return daemon.get("/metrics", headers=headers)

    with Daemon(scratch=tmp_path / "scratch", configuration=configuration) as daemon:
        assert scrape().status == 401
        assert scrape(basic("anna", "wrong")).status == 401
        assert scrape(basic("ben", "secret-of-ben")).status == 403
        answer = scrape(basic("anna", "secret-of-anna"))
        assert answer.status == 200
        assert key("packages", repository="closed") in values_of(answer.text)


def test_the_text_is_openmetrics_for_who_asks_for_it(shop: Shop) -> None:
    plain = shop.daemon.get("/metrics")
    assert plain.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    accept = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5"
    answer = shop.daemon.get("/metrics", headers={"Accept": accept})
    assert answer.headers.get_content_type() == "application/openmetrics-text"
    families = parse_openmetrics(answer.text)  # type: ignore[no-untyped-call]
    assert {family.name for family in families} >= {"repowatch_publications"}


def test_metrics_can_only_be_read(shop: Shop) -> None:
    assert shop.daemon.request("HEAD", "/metrics").body == b""
    assert shop.daemon.request("POST", "/metrics", b"").status == 405
    assert shop.daemon.request("PUT", "/metrics", b"x").status == 405


def test_the_end_of_a_new_certificate_is_told_though_nobody_came_by_tls(tmp_path: Path) -> None:
    (tmp_path / "rpm").mkdir()
    authority = Authority(tmp_path, "servers")

    def install(days: int) -> None:
        pair = authority.server(days=days)
        for name, source in (("key", pair.key), ("pem", pair.certificate)):
            shutil.copy(source, tmp_path / f"server.{name}.new")
            os.rename(tmp_path / f"server.{name}.new", tmp_path / f"server.{name}")

    def days_left() -> int:
        left = shown.read("certificate_expiry_timestamp_seconds") - time.time()
        return round(left / 86400)

    install(30)
    configuration = f"""
tls: {{certificate: {tmp_path}/server.pem, key: {tmp_path}/server.key}}
repositories: {{rpm: {{path: {tmp_path}/rpm}}}}
"""
    arguments = ("--listen", "http://127.0.0.1:0")
    with Daemon(*arguments, scratch=tmp_path / "scratch", configuration=configuration) as daemon:
        daemon.url = ready_urls(tmp_path / "scratch", 2)[0]
        shown = Shop(daemon, tmp_path / "rpm")
        assert days_left() == 30
        install(90)
        wait_until(lambda: days_left() == 90)


# -- the alerts ------------------------------------------------------------------------------------


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load(ALERTS.read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"\d+[smh]", rule["for"])
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert {"summary", "description"} == set(rule["annotations"])


def selectors(expression: str) -> list[tuple[str, dict[str, str]]]:
    """The metrics that an expression of PromQL names, with the labels they must have."""
    rest = re.sub(r"\b(?:by|without|on|ignoring)\s*\([^)]*\)", " ", expression)
    found = re.findall(r"([A-Za-z_:][\w:]*)\s*(?![\w:]*\s*\()(?:\{([^}]*)\})?", rest)
    names = [(name, labels) for name, labels in found if not re.search(rf"\b{name}\s*\(", rest)]
    return [
        (name, dict(re.findall(r'(\w+)="([^"]*)"', labels)))
        for name, labels in names
        if name not in ("and", "or", "unless") and not re.search(rf"\[\d*{name}\]", rest)
    ]


@pytest.mark.client("gpg")
def test_every_number_that_an_alert_asks_for_is_in_a_scrape(tmp_path: Path, keyring: Keyring) -> None:
    (tmp_path / "rpm").mkdir()
    pair = Authority(tmp_path, "servers").server()
    configuration = f"""
tls: {{certificate: {pair.certificate}, key: {pair.key}}}
sign: {{keys: {keyring.make_key("one", expires="1y")}, keyring: {keyring.home}}}
repositories: {{rpm: {{path: {tmp_path}/rpm}}}}
"""
    arguments = ("--listen", "http://127.0.0.1:0")
    with Daemon(*arguments, scratch=tmp_path / "scratch", configuration=configuration) as daemon:
        daemon.url = ready_urls(tmp_path / "scratch", 2)[0]
        shown = Shop(daemon, tmp_path / "rpm").all()
    asked = [each for rule in rules() for each in selectors(rule["expr"])]
    assert len(asked) >= len(rules())
    for name, labels in asked:
        if name == "up":  # Prometheus' own
            continue
        assert any(name == each and labels.items() <= set(has) for each, has in shown), (name, labels)


def test_promtool_takes_the_alerts() -> None:
    if promtool := shutil.which("promtool"):
        run(promtool, "check", "rules", ALERTS)
