"""What every test of the project runs under."""

import os
import subprocess
from collections.abc import Iterator

import pytest
from hypothesis import settings

pytest_plugins = ("pytester", "tests.kit.clients")

settings.register_profile("repowatch-ci", derandomize=True, deadline=None, print_blob=True, database=None)
if os.environ.get("CI"):
    settings.load_profile("repowatch-ci")


@pytest.fixture(scope="session", autouse=True)
def no_agent_stays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Clients that check signatures start an agent for each of their keyrings, and leave it."""
    yield
    for keys in tmp_path_factory.getbasetemp().rglob("private-keys-v1.d"):
        command = ("gpgconf", "--homedir", keys.parent, "--kill", "gpg-agent")
        subprocess.run(command, check=False, capture_output=True)
