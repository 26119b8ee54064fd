"""No client ever sees a broken view, and the reader that says so finds those of others.

REPOWATCH_FAULTS=all makes thousands of publications in the place of hundreds.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.faults.extent import ALL
from tests.kit.clients import locate
from tests.kit.daemon import Daemon
from tests.kit.rpms import make_rpm
from tests.kit.views import Crowd, over_http, read_view

PUBLICATIONS = 4000 if ALL else 200
LONGEST_PAUSE = 5.0 if ALL else 0.5  # seconds
PATIENCE = 30.0  # seconds until createrepo_c has to be convicted


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def plain_server(root: Path) -> Iterator[str]:
    """Serves a directory as any web server does; its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(root))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.client("createrepo_c")
def test_the_reader_finds_the_broken_views_of_createrepo_in_a_loop(tmp_path: Path) -> None:
    tree = tmp_path / "rpm"
    make_rpm(tree)
    update = [str(locate("createrepo_c")), "--quiet", "--update", "--general-compress-type=gz", str(tree)]
    subprocess.run(update, check=True)
    ends = time.monotonic() + PATIENCE
    with plain_server(tree) as url, Crowd(over_http(url)) as crowd:
        number = 0
        while not crowd.broken and time.monotonic() < ends:
            make_rpm(tree, f"p{number}")
            subprocess.run(update, check=True)
            number += 1
    assert crowd.broken, f"{crowd.views} views of {number} publications, and none was broken"


def test_no_view_is_broken_while_uploads_are_published_one_after_the_other(tmp_path: Path) -> None:
    tree = tmp_path / "rpm"
    tree.mkdir()
    with Daemon(tree, scratch=tmp_path / "scratch") as daemon:
        fetch = over_http(daemon.repository_url("rpm"))
        revisions = set()
        with Crowd(fetch, longest_pause=LONGEST_PAUSE) as crowd:
            for number in range(PUBLICATIONS):
                package = make_rpm(tmp_path / "in", f"p{number % 500}", str(number))
                answer = daemon.put(f"/rpm/{package.name}", package)
                assert answer.status == 201
                revisions.add(answer.headers["Repowatch-Revision"])
        assert len(revisions) == PUBLICATIONS
        assert crowd.views > crowd.readers
        assert (crowd.broken, crowd.absent) == ([], 0)
        assert len(read_view(fetch).packages) == PUBLICATIONS
