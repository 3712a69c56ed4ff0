"""`nox -s faults`: what may go wrong is done for real, and what must hold after it is checked. Needs root."""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from edgebuild.engine import ensure_engine
from edgebuild.host import Consent
from edgebuild.run import run
from tests.conftest import ROOT, Workspace
from tests.faults.damage import cached_base, clock, result_set
from tests.faults.disks import closed_folder, results_disk
from tests.faults.engines import engines
from tests.faults.kills import LABEL, kill_in_boot, kills
from tests.faults.registries import pulls, pushes
from tests.faults.suite import BUILD, ENVIRONMENT, Suite, prepare

PARTS = ("damage", "clock", "disks", "registry", "kills", "boot", "engine")


def main(asked: list[str]) -> int:
    """Run the parts asked for, or all; the exit code is 1 when one fault was not withstood."""
    if os.geteuid():
        print("the fault suite mounts small disks and starts a second engine: run it as root", file=sys.stderr)
        return 3
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    parts = asked or list(PARTS)
    suite, started = Suite(), time.monotonic()
    ensure_engine(ROOT, Consent(print, None, os.environ))
    folder = Path(tempfile.mkdtemp(prefix="edgebuild-faults-"))
    folder.chmod(0o755)  # one fault is a user who is not root
    try:
        workspace = prepare(folder / "repository")
        workspace.call(*BUILD)
        if "damage" in parts:
            result_set(suite, workspace)
            cached_base(suite, workspace)
        if "clock" in parts:
            clock(suite, workspace, folder)
        if "disks" in parts:
            closed_folder(suite, workspace)
            results_disk(suite, folder / "small")
            workspace.call(*BUILD)  # the images of this name are its own again
        if "registry" in parts:
            pulls(suite, workspace, folder / "upstream")
            pushes(suite, folder / "pushes")
        if "kills" in parts:
            kills(suite, workspace)
        if "boot" in parts:
            kill_in_boot(suite, workspace)
        if "engine" in parts:
            engines(suite, workspace)  # it changes the pipeline for good
    finally:
        if (folder / "repository/build" / ENVIRONMENT).exists():
            Workspace(folder / "repository").call("clean", "--env", ENVIRONMENT, check=False)
        remove_images()
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
    print(f"\n{time.monotonic() - started:.0f} s in all")
    return suite.end()


def remove_images() -> None:
    """Those that killed and later runs have left without a name."""
    listed = ["docker", "image", "ls", "--all", "--quiet", "--filter", "dangling=true", "--filter", f"label={LABEL}"]
    if left := sorted(set(run(listed).stdout.split())):
        run(["docker", "image", "rm", *left], check=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
