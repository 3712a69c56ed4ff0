"""build/<environment>/sites/index.json: what was written for which site, and whether it is still there and whole."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgebuild import sums
from edgebuild.iso import write_checksum

NAME = "index.json"
FORMAT = 1
WAIT_SECONDS = 2.0
SHARE = 20  # writing the index takes at most one part of so many of a run
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Entry:
    """A site's ISO. `path` is relative to the index, `sha256` in hex, `size` in bytes, `user_data` a keyed hash.

    `state` tells, without reading it, that nobody has written to the file: times of change in ns, and its number.
    """

    site: str
    kind: str
    path: str
    sha256: str
    size: int
    key: str
    user_data: str
    state: tuple[int, ...]


def state_of(path: Path) -> tuple[int, ...]:
    """As in `Entry`. Raises OSError."""
    found = path.stat()
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


class SiteIndex:
    """The index in `folder`; entries are held as text, for a fleet of 100,000 sites."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._boot = BOOT_ID.read_text(encoding="ascii").strip() if BOOT_ID.exists() else ""
        self._lines: dict[tuple[str, str], str] = {}
        self._written, self._took = time.monotonic(), 0.0
        self.damage = ""
        # What was written before the machine went down may not have reached the disk.
        self._trusted = self._read() == self._boot

    def get(self, site: str, kind: str) -> Entry | None:
        line = self._lines.get((site, kind))
        return _entry(json.loads(line)) if line else None

    def put(self, entry: Entry) -> None:
        self._lines[entry.site, entry.kind] = json.dumps(asdict(entry), ensure_ascii=False)

    def sites(self, kind: str) -> Iterator[str]:
        return (site for site, each in self._lines if each == kind)

    def is_whole(self, entry: Entry) -> bool:
        """Whether the ISO and its checksum are there as they were written; reads it when that is not sure."""
        path = self.folder / entry.path
        try:
            if path.stat().st_size != entry.size or not _has_checksum(path, entry.sha256):
                return False
            return (self._trusted and state_of(path) == entry.state) or sums.digest(path) == entry.sha256
        except OSError:
            return False

    def save_now_and_then(self) -> None:
        """Write it when that was some time ago: after a kill, only the last seconds are done again."""
        if time.monotonic() - self._written > max(WAIT_SECONDS, SHARE * self._took):
            self.save()

    def save(self) -> None:
        """Write the index; it appears whole or not at all. Raises OSError."""
        started = time.monotonic()
        partial = self.folder / f".{NAME}.part"
        head = json.dumps({"format": FORMAT, "boot": self._boot})
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(f'{head[:-1]}, "sites": [')
            for number, (_, line) in enumerate(sorted(self._lines.items())):
                file.write(f"{',' if number else ''}\n{line}")
            file.write("\n]}\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.folder / NAME)
        self._written, self._took = time.monotonic(), time.monotonic() - started

    def _read(self) -> str:
        """Take over what is there; returns the boot of the machine in which it was written."""
        try:
            found = json.loads((self.folder / NAME).read_text(encoding="utf-8"))
            if found["format"] == FORMAT:
                for each in found["sites"]:
                    self.put(_entry(each))
            return str(found["boot"])
        except FileNotFoundError:
            return ""
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.damage = f"{NAME} is damaged, and all sites are written anew: {str(error).splitlines()[0]}"
            self._lines.clear()
            return ""


def _entry(found: dict[str, Any]) -> Entry:
    return Entry(**{**found, "state": tuple(found["state"])})


def _has_checksum(path: Path, digest: str) -> bool:
    return path.with_name(path.name + ".sha256").read_text(encoding="ascii") == f"{digest}  {path.name}\n"


def put_checksum(path: Path, digest: str) -> None:
    """`<path>.sha256`, for the user only."""
    file = path.with_name(path.name + ".sha256")
    os.close(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600))
    write_checksum(path, digest)
