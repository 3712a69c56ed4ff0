"""Free space: a build that cannot fit is refused, and one that fills a disk is stopped while something is left.

A full disk hurts more than the build: an engine without space can neither run nor clean up.
"""

import contextlib
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgebuild.engine import Engine
from edgebuild.errors import BuildError
from edgebuild.inputs import Inputs
from edgebuild.iso import CONTENT_FOLDER
from edgebuild.plan import Plan
from edgebuild.report import size
from edgebuild.results import Artifact
from edgebuild.run import running, stop
from edgebuild.session import Session

RESERVE_BYTES = 500 * 10**6
RESERVE_SHARE = 0.05  # of a small disk
LOOK_SECONDS = 0.5
# An ISO without content, where none was built yet: of a Kairos base, and of the bootstrapped Debian.
KAIROS_ISO_BYTES = 3 * 10**9
BOOTSTRAP_ISO_BYTES = 600 * 10**6


@dataclass(frozen=True)
class Disk:
    """The file system that `folder` is on, and what this build may write to it, in bytes."""

    what: str
    folder: Path
    needed: int
    hint: str

    @property
    def free(self) -> int:
        return shutil.disk_usage(self.folder).free

    @property
    def reserve(self) -> int:
        """What is left to others, in bytes."""
        return int(min(RESERVE_BYTES, shutil.disk_usage(self.folder).total * RESERVE_SHARE))


def disks(session: Session, inputs: Inputs, engine: Engine, *, iso: bool, images: bool = True) -> list[Disk]:
    """The file systems that a build of these writes to. An engine on another machine looks after its own."""
    results, last = session.results.folder, session.results.readable_artifacts()
    content = sum((session.root / each).stat().st_size for each in inputs.content)
    needed = iso_bytes(session.plan, last, content) if iso else 0
    found = [Disk("the results", there(results), needed, "./inv clean --env NAME removes an environment's results")]
    if images and engine.endpoint.startswith("unix:"):
        folder = there(engine.folder)
        needed = engine_bytes(session.plan, last)
        found.insert(0, Disk("the engine", folder, needed, "docker system df; docker builder prune"))
    return by_device(found)


def engine_bytes(plan: Plan, last: Sequence[Artifact]) -> int:
    """What the engine's disk must hold: by what the last set of results has, or the plan's rough estimate."""
    images = [each.size_bytes for each in last if each.reference]
    isos = [each.size_bytes for each in last if each.kind == "iso"]
    if not images or not isos:
        return plan.estimated_bytes
    # The base is there three times when nothing is cached: pulled, customized and as the installer.
    return min(plan.estimated_bytes, 3 * max(images) + 2 * max(isos))


def iso_bytes(plan: Plan, last: Sequence[Artifact], content: int) -> int:
    """What the results' disk must hold beside the last set, which stays until the new one is complete.

    `content` is the size of the content bundles, in bytes.
    """
    for each in last:
        if each.kind == "iso":
            parts = each.contents or ()
            had = sum(int(part["length"]) for part in parts if part["name"].startswith(CONTENT_FOLDER))
            return each.size_bytes - had + content
    return content + (KAIROS_ISO_BYTES if "base" in plan.iso.upstream else BOOTSTRAP_ISO_BYTES)


def there(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists and that this user may look at."""
    for path in (folder, *folder.parents):
        with contextlib.suppress(OSError):
            path.stat()
            return path
    return Path("/")


def by_device(disks: Sequence[Disk]) -> list[Disk]:
    """One entry for each file system: what is needed of the same one adds up."""
    found: dict[int, Disk] = {}
    for disk in disks:
        device = disk.folder.stat().st_dev
        same = found.get(device)
        found[device] = (
            Disk(f"{same.what} and {disk.what}", same.folder, same.needed + disk.needed, f"{same.hint}; {disk.hint}")
            if same
            else disk
        )
    return list(found.values())


def check(disks: Sequence[Disk]) -> None:
    """Raise BuildError for the first one that cannot hold what is needed."""
    for disk in disks:
        if disk.free < disk.needed:
            raise BuildError(
                f"{disk.folder}: {size(disk.free)} are free, "
                f"and this build may need {size(disk.needed)} for {disk.what}",
                hint=disk.hint,
            )


def _running_full(disks: Sequence[Disk]) -> list[BuildError]:
    return [
        BuildError(
            f"the disk of {disk.what} runs full: {disk.folder} has {size(free)} left, and "
            f"{size(reserve)} are kept; the build was stopped, earlier results are as they were",
            hint=disk.hint,
        )
        for disk in disks
        if (free := disk.free) < (reserve := disk.reserve)
    ]


@contextlib.contextmanager
def watched(disks: Sequence[Disk]) -> Iterator[None]:
    """While the body runs, look at the disks; one that falls below its reserve stops the body's programs.

    Raises BuildError that names the disk, instead of what the stopped program said.
    """
    full: list[BuildError] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(LOOK_SECONDS):
            full.extend(_running_full(disks) if not full else ())
            # At each look: the body may be between two programs.
            for child in running() if full else ():
                stop(child)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    except Exception as error:
        if full:
            raise full[0] from error
        raise
    finally:
        done.set()
        watcher.join()
    if full:
        raise full[0]
