"""Which doors of a daemon are asked for its status, and in which order."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from repowatch import orders
from repowatch.asking import Door, doors_of
from repowatch.config import Config, TlsConfig, parse_address

TLS = TlsConfig(certificate="/etc/a.pem", key="/etc/a.key")


def doors(*listen: str, tls: TlsConfig | None = None) -> list[Door]:
    return doors_of(Config(listen=tuple(map(parse_address, listen)), tls=tls, repositories=()))


def test_every_address_is_asked_from_its_own_host() -> None:
    assert doors("127.0.0.1:1") == [Door("http://127.0.0.1:1")]
    assert doors("0.0.0.0:1", "[::]:2") == [Door("http://127.0.0.1:1"), Door("http://[::1]:2")]
    assert doors("192.0.2.1:1") == [Door("http://192.0.2.1:1")]
    assert doors("unix:/run/a") == [Door("unix:/run/a")]


def test_the_nearest_comes_first_and_tls_last() -> None:
    listen = ("0.0.0.0:443", "http://0.0.0.0:80", "unix:/run/a", "127.0.0.1:443", "http://[::1]:80")
    assert doors(*listen, tls=TLS) == [
        Door("unix:/run/a"),
        Door("http://[::1]:80"),
        Door("http://127.0.0.1:80"),
        Door("https://127.0.0.1:443", certificate="/etc/a.pem"),
        Door("https://127.0.0.1:443", certificate="/etc/a.pem"),
    ]


def test_who_names_a_user_does_not_come_by_the_operators_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control, file = tmp_path / "control", tmp_path / "repowatch.yaml"
    control.touch()
    file.write_text(f"control: {control}\nrepositories: {{rpm: {{path: /srv/rpm}}}}\n")
    monkeypatch.setenv("REPOWATCH_PASSWORD", "secret")
    options = Namespace(url=None, config=str(file), user=None)
    assert [each.url for each in orders.doors(options)] == [f"unix:{control}", "http://127.0.0.1:8080"]
    options.user = "anna"
    assert orders.doors(options) == [Door("http://127.0.0.1:8080", credentials=("anna", "secret"))]
