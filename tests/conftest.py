"""What every test of the project runs under."""

import os

from hypothesis import settings

pytest_plugins = ("pytester", "tests.kit.clients")

settings.register_profile("repowatch-ci", derandomize=True, deadline=None, print_blob=True, database=None)
if os.environ.get("CI"):
    settings.load_profile("repowatch-ci")
