"""The writing of sites' ISOs: several at once, each whole or not at all."""

import contextlib
import hashlib
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from edgebuild.copying import Original, Patch
from edgebuild.errors import BuildError
from edgebuild.originals import OriginalIso
from edgebuild.padding import padded
from edgebuild.results import FULL
from edgebuild.siteindex import Entry, put_checksum, state_of
from edgebuild.siteplan import Fleet
from edgebuild.sites import Site

FORMAT = 1  # a higher number writes every site anew
SAY_SECONDS = 5.0


def key_of(made_from: OriginalIso, user_data: str) -> str:
    """The key of a site's ISO; `user_data` is a keyed hash."""
    return hashlib.sha256(f"{FORMAT} {made_from.sha256} {user_data}".encode()).hexdigest()


class Writer:
    """Writes the sites' ISOs, several at once; what one site's lacks does not stop the others."""

    def __init__(self, fleet: Fleet, originals: Mapping[int, OriginalIso]) -> None:
        self._fleet, self._originals = fleet, originals
        self._sites = enumerate(fleet.sites())
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._said = time.monotonic()
        self.written = self.kept = 0
        self.failed: dict[str, str] = {}
        self.full = ""

    def run(self, jobs: int) -> None:
        """Return when all is done, or the disk is full. The index is written in any case."""
        workers = [threading.Thread(target=self._work) for _ in range(min(jobs, len(self._fleet)))]
        try:
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        finally:
            self._stop.set()
            for worker in workers:
                worker.join()
            self._fleet.index.save()

    def _next(self) -> tuple[int, Site] | None:
        with self._lock:
            number, site = next(self._sites, (0, None))
            return (number, site) if isinstance(site, Site) and not self._stop.is_set() else None

    def _work(self) -> None:
        while found := self._next():
            number, site = found
            try:
                entry = self._site(number, site)
            except Exception as error:  # whatever it is, it is this site's
                self._failed(site, error)
                continue
            with self._lock:
                self._fleet.index.put(entry)
                self._fleet.index.save_now_and_then()
                self._progress()

    def _site(self, number: int, site: Site) -> Entry:
        fleet = self._fleet
        made_from = self._originals[fleet.lengths[number]]
        user_data = fleet.digest(number)
        key = key_of(made_from, user_data)
        known = fleet.index.get(site.name, fleet.options.kind)
        name = _file_name(fleet, site)
        path = fleet.folder / site.name / name
        if known and known.key == key and known.path == f"{site.name}/{name}" and fleet.index.is_whole(known):
            digest, written = known.sha256, False
        else:
            text = fleet.render(site).encode()
            if fleet.keyed.digest(text) != user_data:
                raise BuildError("its user-data came out as another than when it was checked")
            digest, written = _write(path, made_from.source, Patch(made_from.offset, padded(text))), True
        with self._lock:
            self.written += written
            self.kept += not written
        relative = path.relative_to(fleet.folder).as_posix()
        return Entry(site.name, fleet.options.kind, relative, digest, made_from.size, key, user_data, state_of(path))

    def _failed(self, site: Site, error: Exception) -> None:
        with self._lock:
            if isinstance(error, OSError) and error.errno in FULL:
                self._stop.set()
                self.full = self.full or site.name
                return
            problem = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self.failed[site.name] = f"{site.where}: {site.name}: {problem or type(error).__name__}"

    def _progress(self) -> None:
        if time.monotonic() - self._said > SAY_SECONDS:
            self._said = time.monotonic()
            self._fleet.session.say(f"{self.written + self.kept:,} of {len(self._fleet):,} sites")


def _file_name(fleet: Fleet, site: Site) -> str:
    name = fleet.session.environment.iso.name
    return f"{name}-{site.name}.iso" if fleet.options.kind == "iso" else f"{name}-{site.name}-cidata.iso"


def _write(path: Path, source: Original, patch: Patch) -> str:
    """One ISO and its checksum; at no time does a checksum stand beside another ISO. Returns it, in hex."""
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    try:
        digest = source.copy(partial, [patch])
        path.with_name(path.name + ".sha256").unlink(missing_ok=True)
        partial.replace(path)
        put_checksum(path, digest)
    except BaseException:
        partial.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # holds what was there before
            path.parent.rmdir()
        raise
    return digest
