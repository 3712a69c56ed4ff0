"""The result folder of one environment: results appear whole or not at all, and one run at a time.

build/<environment>/.sets/<n>/ holds one complete set; `.current` names it, and every result stands in
build/<environment>/ as a link through `.current`. So one rename switches the whole set at once, and a killed run
leaves the last one as it was.
"""

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgebuild.errors import BuildError

ARTIFACTS = "artifacts.json"


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One entry of artifacts.json: a file has a `path` (relative to the root), an image a `reference`.

    `registry_digest` is an image's digest in the registry, once it was pushed. `contents` are an ISO's parts,
    each with `name`, `offset`, `length` and `sha256`; `root` is what was asked of its root file system.
    """

    name: str
    kind: str
    digest: str
    size_bytes: int
    seconds: float
    path: str | None = None
    reference: str | None = None
    registry_digest: str | None = None
    contents: Sequence[Mapping[str, Any]] | None = None
    root: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Results:
    """The folder build/<environment>/."""

    folder: Path

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def current(self) -> Path:
        """The last complete set; it may not exist yet."""
        return self.folder / ".current"

    def artifacts(self) -> list[Artifact]:
        """What artifacts.json holds; nothing when there is none."""
        try:
            entries = json.loads((self.current / ARTIFACTS).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        return [Artifact(**entry) for entry in entries]

    def artifact(self, name: str) -> Artifact | None:
        """The entry of this name."""
        return next((each for each in self.artifacts() if each.name == name), None)

    @contextlib.contextmanager
    def lock(self, say: Callable[[str], None]) -> Iterator[None]:
        """Hold this environment for one run; wait for another run, saying which."""
        self._make(self.folder)
        with (self.folder / ".lock").open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                say(f"waiting for another run on this environment ({file.read().strip() or 'just started'})")
                fcntl.flock(file, fcntl.LOCK_EX)
            file.truncate(0)
            file.write(f"process {os.getpid()}, since {time.strftime('%H:%M:%S')}")
            file.flush()
            self._remove_leftovers()
            yield

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """A folder for a new set, on the same file system; gone afterwards unless it was published."""
        folder = self.folder / ".sets" / f"staging-{os.getpid()}"
        self._make(folder)
        folder.chmod(0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(
        self,
        staging: Path,
        names: Collection[str],
        artifacts: Sequence[Artifact] = (),
        *,
        drop: Sequence[str] = (),
        finish: Callable[[Path], None] = lambda _: None,
    ) -> None:
        """Switch to the set in `staging`.

        What it lacks is kept from the last set, but for the globs in `drop`, and for artifacts that are no longer in
        `names`: those of the plan. `finish` gets the complete set before it is shown.
        """
        before = self.artifacts()
        replaced = {artifact.name for artifact in artifacts}
        kept = [artifact for artifact in before if artifact.name in set(names) - replaced]
        entries = [artifact.to_json() for artifact in sorted([*kept, *artifacts], key=lambda each: each.name)]
        (staging / ARTIFACTS).write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
        gone = {f"{each.name}.json" for each in before} - {f"{entry['name']}.json" for entry in entries}
        self._keep(staging, drop=drop, gone=gone)
        finish(staging)
        numbers = [int(path.name) for path in (self.folder / ".sets").iterdir() if path.name.isdigit()]
        chosen = self.folder / ".sets" / str(max(numbers, default=0) + 1)
        _sync(staging)
        staging.rename(chosen)
        _link(self.current, f".sets/{chosen.name}")
        self._link_names(chosen)
        _sync(self.folder)
        self._remove_leftovers()

    def _keep(self, staging: Path, *, drop: Sequence[str], gone: Collection[str]) -> None:
        """Link from the last set what `staging` lacks. `gone` are names of files about artifacts that are no more."""
        if not self.current.exists():
            return
        for old in self.current.resolve().rglob("*"):
            relative = old.relative_to(self.current.resolve())
            target = staging / relative
            if old.is_dir() or target.exists() or any(old.match(pattern) for pattern in drop):
                continue
            if len(relative.parts) > 1 and old.name in gone:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(old)

    def _link_names(self, chosen: Path) -> None:
        names = {path.name for path in chosen.iterdir()}
        for name in names:
            _link(self.folder / name, f".current/{name}")
        for path in self.folder.iterdir():
            if path.is_symlink() and path.name != ".current" and path.name not in names:
                path.unlink()

    def _remove_leftovers(self) -> None:
        """Sets and staging folders of earlier and killed runs; only the run that holds the lock gets here."""
        alive = self.current.resolve().name if self.current.exists() else ""
        for path in (self.folder / ".sets").glob("*"):
            if path.name != alive:
                shutil.rmtree(path, ignore_errors=True)

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BuildError(
                f"{folder}: cannot be made: {error.strerror}", hint="results go to build/ in the repository"
            ) from error


def _link(path: Path, target: str) -> None:
    """Make `path` a link to `target` in one step, whatever stood there."""
    if path.is_symlink() and str(path.readlink()) == target:
        return
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
