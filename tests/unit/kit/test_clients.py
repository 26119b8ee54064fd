import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kit.clients import locate

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory on PATH: what is not put there is missing."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


@pytest.fixture
def on_a_desk(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, programs: Path) -> Run:
    monkeypatch.delenv("CI", raising=False)
    return lambda test: run(pytester, test)


@pytest.fixture
def in_ci(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, programs: Path) -> Run:
    monkeypatch.setenv("CI", "1")
    return lambda test: run(pytester, test)


def run(pytester: pytest.Pytester, test: str) -> pytest.RunResult:
    pytester.makepyfile(test)
    return pytester.runpytest_inprocess("--strict-markers", "-p", "tests.kit.clients")


def install(directory: Path, client: str) -> None:
    (directory / client).write_text("#!/bin/sh\n")
    (directory / client).chmod(0o755)


NEEDS_DNF_AND_CURL = """
    import pytest

    @pytest.mark.client("dnf", "curl")
    def test_it():
        pass
"""


def test_on_a_desk_a_missing_client_skips_its_test(on_a_desk: Run, programs: Path) -> None:
    install(programs, "curl")
    result = on_a_desk(NEEDS_DNF_AND_CURL)
    result.assert_outcomes(skipped=1)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.no_fnmatch_line("*a skip in CI*")


def test_in_ci_a_missing_client_fails_its_test_and_is_named(in_ci: Run, programs: Path) -> None:
    install(programs, "curl")
    result = in_ci(NEEDS_DNF_AND_CURL)
    result.assert_outcomes(errors=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["not installed: dnf"])


def test_an_empty_ci_variable_is_a_desk(on_a_desk: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "")
    on_a_desk(NEEDS_DNF_AND_CURL).assert_outcomes(skipped=1)


def test_in_ci_a_test_runs_whose_clients_are_all_there(in_ci: Run, programs: Path) -> None:
    install(programs, "curl")
    install(programs, "dnf")
    result = in_ci(NEEDS_DNF_AND_CURL)
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.OK


def test_a_missing_client_is_noticed_before_any_fixture_needs_it(on_a_desk: Run) -> None:
    on_a_desk(
        """
        import pytest

        @pytest.fixture(autouse=True)
        def daemon():
            raise AssertionError

        @pytest.mark.client("dnf")
        def test_it():
            pass
        """
    ).assert_outcomes(skipped=1)


def test_the_table_counts_each_test_once_for_each_of_its_clients(on_a_desk: Run, programs: Path) -> None:
    install(programs, "curl")
    result = on_a_desk(
        """
        import pytest

        pytestmark = pytest.mark.client("curl")

        @pytest.fixture
        def broken_teardown():
            yield
            raise ValueError

        def test_passes():
            pass

        def test_fails():
            raise ValueError

        def test_fails_in_teardown(broken_teardown):
            pass

        @pytest.mark.xfail
        def test_fails_as_expected():
            raise ValueError

        @pytest.mark.client("zypper")
        def test_needs_another():
            pass
        """
    )
    result.stdout.fnmatch_lines(
        [
            "client  * run  passed  failed skipped",
            "curl    *   4       2       2       1",
            "zypper  *   0       0       0       1",
        ]
    )


def test_a_run_without_clients_has_no_table(on_a_desk: Run) -> None:
    on_a_desk("def test_it(): pass").stdout.no_fnmatch_line("*= clients =*")


def test_the_closing_line_of_pytest_comes_after_the_table(on_a_desk: Run) -> None:
    assert "1 skipped in" in on_a_desk(NEEDS_DNF_AND_CURL).outlines[-1]


SKIPS = {
    "a marker": """
        import pytest

        @pytest.mark.skip(reason="too slow today")
        def test_it():
            pass
    """,
    "a call": """
        import pytest

        def test_it():
            pytest.skip("too slow today")
    """,
    "a whole module": """
        import pytest

        pytest.skip("too slow today", allow_module_level=True)
    """,
}


@pytest.mark.parametrize("test", SKIPS.values(), ids=SKIPS.keys())
def test_in_ci_any_skip_makes_the_run_red_and_is_named(in_ci: Run, test: str) -> None:
    result = in_ci(test + "\n\n        def test_another(): pass\n")
    assert result.ret != pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*a skip in CI is a failure*", "*.py*: *too slow today"])


def test_in_ci_an_expected_failure_is_no_skip(in_ci: Run) -> None:
    result = in_ci(
        """
        import pytest

        @pytest.mark.xfail
        def test_it():
            raise ValueError
        """
    )
    result.assert_outcomes(xfailed=1)
    assert result.ret == pytest.ExitCode.OK


def test_a_client_that_nobody_knows_is_a_mistake_of_the_test(on_a_desk: Run) -> None:
    result = on_a_desk(
        """
        import pytest

        @pytest.mark.client("dfn")
        def test_it():
            pass
        """
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_it: no such client: dfn; known are *"])


def test_createrepo_c_is_the_one_of_the_imported_binding(programs: Path) -> None:
    install(programs, "createrepo_c")
    assert locate("createrepo_c") == Path(sys.executable).parent / "createrepo_c"
