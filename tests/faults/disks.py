"""Disks that are full, or that nobody may write to, in each phase of a run."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from edgebuild.run import run
from tests.conftest import Workspace
from tests.faults.kills import change
from tests.faults.machine import empty, fill, small_disk
from tests.faults.suite import AGAIN, BUILD, Suite, call, prepare, refused, results_of

FULL = ("runs full", "disk is full", "No space left on device")


@contextlib.contextmanager
def as_soon_as(there: Callable[[], bool], action: Callable[[], None]) -> Iterator[None]:
    """Act once, when what another process writes is there."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.005):
            if there():
                action()
                return

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def results_disk(suite: Suite, folder: Path) -> None:
    """The results' own disk, full at four moments."""
    workspace = prepare(folder)
    disk = results_of(workspace).folder
    with small_disk(disk, "2G"):
        workspace.call(*BUILD)

        def before() -> str:
            fill(disk, leave=50 * 2**20)
            result = call(workspace, *AGAIN)
            empty(disk)
            return refused(result, 1, "are free, and this build may need")

        suite.case("results' disk full before the start", before, workspace)
        for number, (phase, words) in enumerate(
            {"while logs and inputs are written": "building ", "while the ISO is written": "putting together"}.items()
        ):

            def during(words: str = words, argv: tuple[str, ...] = change(workspace, number)) -> str:
                result = call(workspace, *argv, when={words: lambda _: fill(disk)})
                empty(disk)
                return refused(result, 1, *FULL)

            suite.case(f"results' disk full {phase}", during, workspace)

        def at_the_end() -> str:
            argv = change(workspace, 7)
            with as_soon_as(lambda: any(disk.glob(".sets/staging-*/*.iso.sha256")), lambda: fill(disk)):
                result = call(workspace, *argv)
            empty(disk)
            return refused(result, 1, *FULL)

        suite.case("results' disk full while the set is completed", at_the_end, workspace)


def closed_folder(suite: Suite, workspace: Workspace) -> None:
    """A mount that is read-only, for root; and a folder of somebody else's, for everybody else."""
    folder = results_of(workspace).folder

    def read_only() -> str:
        run(["mount", "--bind", folder, folder])
        try:
            run(["mount", "-o", "remount,ro,bind", folder])
            return refused(call(workspace, *BUILD), 1, "cannot be written: Read-only file system")
        finally:
            run(["umount", folder])

    def not_ours() -> str:
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        result = call(workspace, *BUILD, prefix=nobody, env={"HOME": "/nonexistent"})
        return refused(result, 1, "cannot be written: Permission denied")

    suite.case("read-only output folder", read_only, workspace)
    suite.case("output folder of another user, as nobody", not_ours, workspace)
