"""The cheapest of what `nox -s faults` does: the last set stays, and the next run makes good what was damaged."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgebuild.container import container_argv
from edgebuild.run import run
from tests.conftest import Workspace
from tests.faults.damage import cached_base, result_set
from tests.faults.disks import results_disk
from tests.faults.kills import change
from tests.faults.suite import AGAIN, BUILD, ENVIRONMENT, Suite, call, prepare, results_of


@pytest.fixture(scope="module")
def faulty(bootstrapped: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace of its own, built once."""
    workspace = prepare(tmp_path_factory.mktemp("faults") / "repository")
    workspace.call(*BUILD)
    yield workspace
    workspace.call("clean", "--env", ENVIRONMENT)


@pytest.fixture
def suite() -> Iterator[Suite]:
    """Collects what did not hold, and fails with it."""
    suite = Suite()
    yield suite
    assert suite.rows
    assert not [row for row in suite.rows if row.problem]


def test_sigkill_while_the_iso_is_written(faulty: Workspace, suite: Suite) -> None:
    arguments = change(faulty, 1)

    def provoke() -> str:
        result = call(faulty, *arguments, when={"putting together": lambda child: child.kill()})
        assert result.returncode == -9
        assert list(results_of(faulty).folder.glob(".sets/staging-*"))
        return "killed"

    suite.case("SIGKILL while the ISO is written", provoke, faulty, plain=arguments)


def test_a_container_that_outlived_its_run(faulty: Workspace, suite: Suite) -> None:
    """As after a SIGKILL for the docker client and for us."""
    results = results_of(faulty)
    tree = next(each for each in results.artifacts() if each.kind == "boot-tree")
    left = container_argv(
        tree.digest, ["sleep", "600"], name=f"{ENVIRONMENT}-left", read={"/logs": results.logs}, options=["--detach"]
    )

    def provoke() -> str:
        run(left)
        return "left running"

    suite.case("a container of a killed run", provoke, faulty, plain=AGAIN)
    assert run(["docker", "ps", "--all", "--quiet", "--filter", f"name={ENVIRONMENT}-left"]).stdout == ""


def test_damaged_results(faulty: Workspace, suite: Suite) -> None:
    result_set(suite, faulty)


def test_damaged_base(faulty: Workspace, suite: Suite) -> None:
    cached_base(suite, faulty, "cached base with another byte")


def test_full_results_disk(bootstrapped: Path, suite: Suite, tmp_path: Path) -> None:
    results_disk(suite, tmp_path / "small")
