"""The result folder of one environment: results appear whole or not at all, and one run at a time.

build/<environment>/.sets/<n>/ holds one complete set; `.current` names it, and every result stands in
build/<environment>/ as a link through `.current`. So one rename switches the whole set at once, and a killed run
leaves the last one as it was. A set has its number only when every byte of it is on the disk.
"""

import contextlib
import errno
import functools
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from edgebuild.errors import BuildError, VerificationError
from edgebuild.locking import locked
from edgebuild.records import Records

ARTIFACTS = "artifacts.json"
# What the disk answers when it cannot take any more, or nothing at all.
FULL = (errno.ENOSPC, errno.EDQUOT)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One entry of artifacts.json: a file has a `path` (relative to the root), an image a `reference`.

    `registry_digest` is an image's digest in the registry, once it was pushed. `contents` are an ISO's parts,
    each with `name`, `offset`, `length` and `sha256`; `asked` is what it should be (structure.Expected). `key` is the
    hash of all that it was made from (keys.py).
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
    asked: Mapping[str, Any] | None = None
    key: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value is not None}


@functools.cache
def _reader() -> TypeAdapter[list[Artifact]]:
    return TypeAdapter(list[Artifact])


def read_artifacts(folder: Path) -> list[Artifact]:
    """The entries of a set's artifacts.json. Raises OSError, and ValueError for what is no such list."""
    return _reader().validate_python(json.loads((folder / ARTIFACTS).read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Results:
    """The folder build/<environment>/."""

    folder: Path

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def records(self) -> Records:
        return Records(self.folder / "records")

    @property
    def current(self) -> Path:
        """The last complete set; it may not exist yet."""
        return self.folder / ".current"

    @property
    def unfinished(self) -> Path:
        """Exists when a run was killed between the switch and what had to follow it."""
        return self.folder / ".unfinished"

    def new_log(self, kind: str) -> Path:
        """A new log, of a name that none had: clocks go back, and several builds begin in one second."""
        stem = f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}"
        self.logs.mkdir(parents=True, exist_ok=True)
        for number in itertools.count():
            path = self.logs / (f"{stem}-{number}.log" if number else f"{stem}.log")
            with contextlib.suppress(FileExistsError):
                path.touch(mode=0o600, exist_ok=False)
                break
        return path

    def artifacts(self) -> list[Artifact]:
        """What artifacts.json holds; nothing when there is none. Raises VerificationError when it is damaged."""
        try:
            return read_artifacts(self.current)
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise VerificationError(
                f"{self.folder / ARTIFACTS} is damaged: {error}", hint="build again: ./inv build-all-images"
            ) from error

    def artifact(self, name: str) -> Artifact | None:
        """The entry of this name."""
        return next((each for each in self.artifacts() if each.name == name), None)

    @contextlib.contextmanager
    def lock(self, say: Callable[[str], None]) -> Iterator[None]:
        """Hold this environment for one run; wait for another run, saying which.

        What killed runs left is gone then, and what somebody damaged is said. Raises BuildError for a disk that
        is full or cannot be written.
        """
        try:
            with locked(self.folder / ".lock", say, "environment"):
                self._repair(say)
                yield
        except OSError as error:
            if refusal := self._refusal(error):
                raise refusal from error
            raise

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """A folder for a new set, on the same file system; gone afterwards unless it was published."""
        folder = self.folder / ".sets" / f"staging-{os.getpid()}"
        folder.mkdir(parents=True)
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
        follow: Callable[[], None] = lambda: None,
    ) -> None:
        """Switch to the set in `staging`.

        What it lacks is kept from the last set, but for the globs in `drop`, and for artifacts that are no longer in
        `names`: those of the plan. `finish` gets the complete set before it is shown. `follow` does elsewhere what
        belongs to the switch; `unfinished` exists until it has.
        """
        before = self.readable_artifacts()
        replaced = {artifact.name for artifact in artifacts}
        kept = [artifact for artifact in before if artifact.name in set(names) - replaced]
        entries = [artifact.to_json() for artifact in sorted([*kept, *artifacts], key=lambda each: each.name)]
        (staging / ARTIFACTS).write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
        gone = {each.name for each in before} - {entry["name"] for entry in entries}
        self._keep(staging, drop=drop, gone=gone)
        finish(staging)
        _sync_all(staging)
        chosen = self.folder / ".sets" / str(max(self._numbers(), default=0) + 1)
        staging.rename(chosen)
        _sync(chosen.parent)
        before_us = self.unfinished.exists()
        self.unfinished.touch()
        self._switch(chosen)
        follow()
        if not before_us:
            self.unfinished.unlink()
        self._remove_leftovers()

    def _keep(self, staging: Path, *, drop: Sequence[str], gone: Collection[str]) -> None:
        """Link from the last set what `staging` lacks. `gone` are artifacts that are no more, and their documents."""
        if not self.current.exists():
            return
        for old in self.current.resolve().rglob("*"):
            relative = old.relative_to(self.current.resolve())
            target = staging / relative
            if old.is_dir() or target.exists() or any(old.match(pattern) for pattern in drop):
                continue
            if len(relative.parts) > 1 and old.name.partition(".")[0] in gone:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(old)

    def readable_artifacts(self) -> list[Artifact]:
        """The last set's entries, but for a damaged list: that was said when the lock was taken."""
        try:
            return self.artifacts()
        except VerificationError:
            return []

    def _numbers(self) -> list[int]:
        return [int(path.name) for path in (self.folder / ".sets").glob("*") if path.name.isdigit()]

    def _switch(self, chosen: Path) -> None:
        """From here on the results are those of this set; a link of its own for each of them."""
        _link(self.current, f".sets/{chosen.name}")
        _sync(self.folder)
        names = {path.name for path in chosen.iterdir()}
        for name in names:
            _link(self.folder / name, f".current/{name}")
        for path in self.folder.iterdir():
            if path.is_symlink() and path.name != ".current" and path.name not in names:
                path.unlink()
        _sync(self.folder)

    def _repair(self, say: Callable[[str], None]) -> None:
        """Before anything else is done: `.current` names a complete set again, and what killed runs left goes."""
        sets = self.folder / ".sets"
        if self.current.is_dir() and not self.current.is_symlink():  # a copy of the folder that followed its links
            sets.mkdir(exist_ok=True)
            self.current.rename(sets / str(max(self._numbers(), default=0) + 1))
        if self.current.is_dir() and self.current.resolve().parent == sets.resolve():
            self._switch(self.current.resolve())
        elif numbers := self._numbers():
            say(f"{self.current} names no set; the last complete one is {sets.name}/{max(numbers)}")
            self._switch(sets / str(max(numbers)))
        else:
            self.current.unlink(missing_ok=True)
        self._remove_leftovers()
        try:
            self.artifacts()
        except VerificationError as error:
            say(f"warning: {error.message}; its results stay, without their entries until they are built again")

    def _remove_leftovers(self) -> None:
        """Old sets, staging folders and half-made links; only the run that holds the lock gets here."""
        alive = self.current.resolve().name if self.current.exists() else ""
        for path in (self.folder / ".sets").glob("*"):
            if path.name != alive:
                shutil.rmtree(path, ignore_errors=True)
        for path in self.folder.glob("boot/.qemu-*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in self.folder.glob("records/*/.*"):
            path.unlink()
        for path in self.folder.glob(".*.*"):
            if path.is_symlink() and path.suffix[1:].isdigit():
                path.unlink()

    def _refusal(self, error: OSError) -> BuildError | None:
        """A disk that takes nothing, as an error with a way out; None for anything else."""
        where = Path(error.filename or self.folder)
        if error.errno in FULL:
            disk = next(path for path in (self.folder, *self.folder.parents) if path.exists())
            return BuildError(
                f"{where}: the disk is full: {shutil.disk_usage(disk).free / 1e6:.0f} MB are left",
                hint="free space there, or clean other environments: ./inv clean --env NAME",
            )
        if error.errno in CLOSED and (self.folder in (where, *where.parents) or where in self.folder.parents):
            return BuildError(
                f"{where}: cannot be written: {error.strerror}",
                hint=f"results go to {self.folder}, which must be yours to write to",
            )
        return None


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


def _sync_all(folder: Path) -> None:
    """Return when all below `folder` is on the disk; what is linked to a file of the last set is there already."""
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        if path.is_file() and not path.is_symlink() and path.stat().st_nlink == 1:
            _sync(path)
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            _sync(path)


def _sync(path: Path) -> None:
    """Return when a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
