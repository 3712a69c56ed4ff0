"""The next ISO from the last one: a copy with other site files in it, where every other byte stays.

xorriso would write the same bytes: the directories name a file's place and size, and no file of another number of
sectors is put in this way.
"""

import hashlib
import json
import re
import stat
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgebuild import gate, sums
from edgebuild.contents import Contents
from edgebuild.copying import Original, Patch
from edgebuild.iso import (
    PARTITION_OFFSET,
    IsoRequest,
    IsoResult,
    command_of,
    keeps_menu,
    overlay_files,
    unwritable,
    write_checksum,
)
from edgebuild.isofile import SECTOR, SYSTEM_AREA
from edgebuild.materials import open_contents
from edgebuild.results import Artifact
from edgebuild.session import Session
from edgebuild.structure import MENU, ROOT, USER_DATA

LAYOUTS = "layouts"  # the kind of the records that hold them
FORMAT = 1  # a higher number makes every ISO anew
LARGEST = 16 << 20  # a larger file is xorriso's
STRUCTURAL = ("/boot/", "/EFI/", ROOT)  # looked at as a whole when they change
RECORDS = 2  # of each file: in the directories of ISO 9660 and of Joliet, and once more as the partition sees them


@dataclass(frozen=True)
class Change:
    """One file of the ISO with other content; `sha256` in hex, `old` is its part of the last ISO."""

    name: str
    data: bytes = field(repr=False)
    sha256: str
    old: Mapping[str, Any]


def respin(session: Session, request: IsoRequest, path: Path) -> tuple[IsoResult, dict[str, Any]] | None:
    """Write the ISO, its checksum, and tell what artifacts.json keeps of it; None where xorriso has to make it.

    The last ISO is read whole: no copy of a damaged one stays. Raises BuildError, VerificationError.
    """
    started = time.monotonic()
    last = next((each for each in session.results.readable_artifacts() if each.kind == "iso"), None)
    noted = session.results.records.get(LAYOUTS, last.digest) if last else None
    if not last or not noted or noted["layout"] != layout(request, open_contents(session)):
        return None
    source = session.results.current / Path(str(last.path)).name
    changes = find_changes(request, last)
    if changes is None or not source.is_file():
        return None
    session.say("copying the last ISO; other are: " + (", ".join(each.name for each in changes) or "none"))
    try:
        patches = list(patches_of(source, last, changes))
        first = min((patch.offset for patch in patches), default=last.size_bytes)
        with Original(source, first) as original, ThreadPoolExecutor(max_workers=1) as pool:
            whole = pool.submit(original.digest)
            digest = original.copy(path, patches, sync=True)
            damaged = f"sha256:{whole.result()}" != last.digest
    except ValueError:  # the directories are others than xorriso's
        return None
    except OSError as error:
        path.unlink(missing_ok=True)
        raise unwritable(path, error) from error
    if damaged:
        path.unlink()
        session.say(f"{source.name} was changed since it was written; making it anew")
        return None
    moved = any(len(change.data) != change.old["length"] for change in changes)
    found = gate.check_respun(path, last, {each.name: (len(each.data), each.sha256) for each in changes}, moved=moved)
    write_checksum(path, digest)
    return IsoResult(path, digest, last.size_bytes, time.monotonic() - started, {}), found


def remember(session: Session, request: IsoRequest, result: IsoResult) -> None:
    """Note what an ISO that has passed its checks can be the original of."""
    session.results.records.add(LAYOUTS, f"sha256:{result.sha256}", layout=layout(request, open_contents(session)))


def layout(request: IsoRequest, contents: Contents) -> str:
    """The key of all bytes but those of files that may be exchanged, of which it has place and sectors."""
    exchanged = _exchangeable(request)
    document = {
        "format": FORMAT,
        "boot tree": request.image,
        "command": command_of(request),
        "content": [contents.digest(file) for file in (*request.content, request.cluster_definition) if file],
        "overlay": list(_entries(request, contents, exchanged)),
        "sectors": {name: -(-file.stat().st_size // SECTOR) for name, file in exchanged.items()},
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def contents_of(request: IsoRequest) -> dict[str, str]:
    """SHA-256 in hex of each file that may be exchanged, by its path on the ISO."""
    return {name: sums.digest(file) for name, file in _exchangeable(request).items()}


def _exchangeable(request: IsoRequest) -> dict[str, Path]:
    """Files of a site that nothing on the ISO stands on, by their path there."""
    found = {
        name: file
        for name, file in overlay_files(request).items()
        if not name.startswith(STRUCTURAL) and file.stat().st_size <= LARGEST
    }
    menu = request.overlay / MENU[1:] if request.overlay and keeps_menu(request) else request.grub_cfg
    return {**found, MENU: menu, USER_DATA: request.user_data}


def _entries(request: IsoRequest, contents: Contents, exchanged: Mapping[str, Path]) -> Iterator[list[str]]:
    """Each path of the overlay, with all that its directory record and its place depend on."""
    first: dict[tuple[int, int], str] = {}
    for path in sorted(request.overlay.rglob("*")) if request.overlay else ():
        name, found = f"/{path.relative_to(request.overlay)}", path.lstat()  # type: ignore[arg-type]
        if path.name == ".gitkeep":
            continue
        entry = [name, str(stat.S_IFMT(found.st_mode)), str(bool(found.st_mode & 0o111))]
        if stat.S_ISLNK(found.st_mode):
            entry.append(str(path.readlink()))
        elif stat.S_ISREG(found.st_mode):
            # Two names of one file share its bytes on the ISO, too.
            entry.append(first.setdefault((found.st_dev, found.st_ino), name))
            entry += [] if name in exchanged else [contents.digest(path)]
        yield entry


def find_changes(request: IsoRequest, last: Artifact) -> list[Change] | None:
    """The files that are others than on the last ISO; None when one cannot be put into its place."""
    parts = {part["name"]: part for part in last.contents or ()}
    found = []
    for name, file in _exchangeable(request).items():
        data, old = file.read_bytes(), parts.get(name)
        digest = hashlib.sha256(data).hexdigest()
        if old and old["sha256"] == digest:
            continue
        if not old or -(-len(data) // SECTOR) != -(-old["length"] // SECTOR) or _shared(old, parts):
            return None
        found.append(Change(name, data, digest, old))
    return found


def _shared(part: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]]) -> bool:
    return any(
        each["offset"] == part["offset"] and each["name"] != part["name"] and each["length"]
        for each in parts.values()
    )


def patches_of(source: Path, last: Artifact, changes: Sequence[Change]) -> Iterator[Patch]:
    """The bytes of each changed file up to the end of its last sector, and its size in the directories.

    Raises OSError, and ValueError where the directories do not name the file as they should.
    """
    files = [part["offset"] for part in last.contents or () if part["name"].startswith("/") and part["length"]]
    directories = b""
    for change in changes:
        offset, length = change.old["offset"], change.old["length"]
        yield Patch(offset, change.data + bytes(-len(change.data) % SECTOR))
        if len(change.data) == length:
            continue
        if not directories:
            with source.open("rb") as file:
                file.seek(SYSTEM_AREA)
                directories = file.read(min(files) - SYSTEM_AREA)
        for start in (0, PARTITION_OFFSET):
            record = _both(offset // SECTOR - start) + _both(length)
            places = [found.start() for found in re.finditer(re.escape(record), directories)]
            if len(places) != RECORDS:
                raise ValueError(f"{change.name} stands in {len(places)} directories")
            size = len(record) // 2
            yield from (Patch(SYSTEM_AREA + place + size, _both(len(change.data))) for place in places)


def _both(number: int) -> bytes:
    """A number as ISO 9660 writes it (7.3.3): little-endian, then big-endian."""
    return struct.pack("<I", number) + struct.pack(">I", number)
