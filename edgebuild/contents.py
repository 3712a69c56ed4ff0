"""The repository's files by content: hashes of what a build reads, remembered for large files that did not change."""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from edgebuild import sums

LARGE_BYTES = 1 << 20  # smaller files are read faster than a memory is kept
KEPT = 5000
UNSEEN = (".gitkeep", "__pycache__")  # as in .dockerignore; what it names beyond only costs a question to BuildKit


class Contents:
    """Hashes of files below `root`. `file` remembers those of large files, by inode, size and times."""

    def __init__(self, root: Path, file: Path) -> None:
        self.root, self._file = root, file
        self._known = self._read()
        self._before = dict(self._known)

    def digest(self, path: Path) -> str:
        """SHA-256 in hex. Raises OSError."""
        found = path.stat()
        if found.st_size < LARGE_BYTES:
            return sums.digest(path)
        name, state = f"{found.st_dev}:{found.st_ino}", [found.st_size, found.st_mtime_ns, found.st_ctime_ns]
        known = self._known.get(name)
        if not known or known[:3] != state:
            known = [*state, sums.digest(path)]
            self._known[name] = known
        return str(known[3])

    def note(self, path: Path, digest: str) -> None:
        """Remember what a file's hash is known to be: it was just written, or linked to another name."""
        found = path.stat()
        state = [found.st_size, found.st_mtime_ns, found.st_ctime_ns]
        self._known[f"{found.st_dev}:{found.st_ino}"] = [*state, digest]

    def entries(self, pattern: str) -> dict[str, str]:
        """Path to `mode sha256` (a link: `-> target`) of what an instruction copies by this name or glob.

        A file that is not there has no entry: BuildKit says so.
        """
        pattern = pattern.strip("/")
        if pattern in {"", "."}:
            return {path: self._entry(self.root / path) for path in self._context()}
        try:
            roots = sorted(self.root.glob(pattern))
        except (ValueError, NotImplementedError):
            return {}
        paths = [path for top in roots for path in _below(top)]
        return {path.relative_to(self.root).as_posix(): self._entry(path) for path in paths}

    def _context(self) -> list[str]:
        """The whole build context: only a fork's own line copies it."""
        from docker.utils.build import exclude_paths

        try:
            patterns = (self.root / ".dockerignore").read_text(encoding="utf-8").splitlines()
        except OSError:
            patterns = []
        patterns = [line.strip() for line in patterns if line.strip() and not line.startswith("#")]
        found = exclude_paths(str(self.root), patterns)
        return sorted(path for path in found if not (self.root / path).is_dir() or (self.root / path).is_symlink())

    def _entry(self, path: Path) -> str:
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            return f"-> {path.readlink()}"
        return f"{stat.S_IMODE(found.st_mode):04o} {self.digest(path)}"

    def save(self) -> None:
        """Write what was learnt; appears whole or not at all."""
        if self._known == self._before:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._file.with_name(f".{self._file.name}-{os.getpid()}")
        kept = dict(list(self._known.items())[-KEPT:])
        partial.write_text(json.dumps(kept) + "\n", encoding="utf-8")
        partial.replace(self._file)

    def _read(self) -> dict[str, list[object]]:
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
            return {str(name): list(entry) for name, entry in found.items() if len(entry) == 4}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}  # then everything is read once more


def _below(top: Path) -> Iterator[Path]:
    """Files and links at or below a path, sorted."""
    if top.is_symlink() or not top.is_dir():
        if top.name not in UNSEEN:
            yield top
        return
    for path in sorted(top.iterdir()):
        if path.name not in UNSEEN:
            yield from _below(path)
