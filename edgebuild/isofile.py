"""What an ISO file holds, read without any tool: layout, boot entries, partitions, files. All sizes in bytes."""

import contextlib
import hashlib
import io
import struct
import uuid
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from edgebuild.errors import VerificationError

SECTOR = 2048
LBA = 512
SYSTEM_AREA = 16 * SECTOR
CHUNK = 1 << 20
ESP_TYPE = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
BIOS, UEFI = 0x00, 0xEF
# Names of what is no file.
AREA_SYSTEM = "boot record and partition table"
AREA_DIRECTORIES = "volume descriptors and directories"
AREA_ESP = "EFI system partition"
AREA_BACKUP = "backup partition table"
AREA_PADDING = "padding"


@dataclass(frozen=True, order=True)
class Region:
    """Consecutive bytes of the ISO that belong to `name`: a path, or one of the AREA_ names."""

    offset: int
    length: int
    name: str


@dataclass(frozen=True)
class BootEntry:
    """One entry of the El Torito catalogue; `platform` is BIOS or UEFI."""

    platform: int
    bootable: bool
    offset: int
    length: int


@dataclass(frozen=True)
class Partition:
    """One partition of the GPT."""

    number: int
    type: uuid.UUID
    offset: int
    length: int


@dataclass(frozen=True)
class Iso:
    """The layout of one ISO. `regions` cover all of it, in order; `problems` are flaws met while reading."""

    size: int
    label: str
    regions: tuple[Region, ...]
    files: dict[str, tuple[Region, ...]]
    boot_entries: tuple[BootEntry, ...]
    partitions: tuple[Partition, ...]
    problems: tuple[str, ...]

    @property
    def esp(self) -> Partition | None:
        return next((each for each in self.partitions if each.type == ESP_TYPE), None)


def read_iso(path: Path) -> Iso:
    """Read the layout. Raises VerificationError when it is no ISO, or a broken one."""
    import pycdlib  # costs 0.1 s, and most tasks read no ISO

    size = path.stat().st_size
    image = pycdlib.PyCdlib()
    try:
        image.open(str(path))
        try:
            files = dict(_files(image))
            entries = tuple(_boot_entries(image))
            label = image.pvd.volume_identifier.decode("ascii", "replace").rstrip()
        finally:
            image.close()
    except OSError:
        raise
    except Exception as error:  # a broken image makes the library fail in any way
        raise VerificationError(f"{path.name}: {AREA_DIRECTORIES}: cannot be read: {error}") from error
    with path.open("rb") as file:
        partitions, problems = read_gpt(file, size)
    beyond = [name for name, parts in files.items() if any(each.offset + each.length > size for each in parts)]
    problems += [f"{name}: reaches beyond the end of the ISO" for name in beyond]
    esp = next((each for each in partitions if each.type == ESP_TYPE), None)
    regions = cover(size, [each for parts in files.values() for each in parts], esp)
    return Iso(size, label, tuple(regions), files, entries, tuple(partitions), tuple(problems))


def _files(image: Any) -> Iterator[tuple[str, tuple[Region, ...]]]:
    """Every file by its Rock Ridge path; one larger than 4 GiB stands there in several extents."""
    for folder, _, names in image.walk(rr_path="/"):
        for name in names:
            path = f"{folder.rstrip('/')}/{name}"
            record: Any = image.get_record(rr_path=path)
            parts = []
            while record is not None and not record.is_dir():
                if record.rock_ridge is not None and record.rock_ridge.is_symlink():
                    break
                parts.append(Region(record.extent_location() * SECTOR, record.data_length, path))
                record = record.data_continuation
            yield path, tuple(parts)


def _boot_entries(image: Any) -> Iterator[BootEntry]:
    catalogue = image.eltorito_boot_catalog
    if catalogue is None:
        return
    groups = [(catalogue.validation_entry.platform_id, [catalogue.initial_entry])]
    groups += [(section.platform_id, section.section_entries) for section in catalogue.sections]
    for platform, entries in groups:
        for entry in entries:
            bootable = entry.boot_indicator == 0x88
            yield BootEntry(platform, bootable, entry.load_rba * SECTOR, entry.sector_count * LBA)


def cover(size: int, files: Sequence[Region], esp: Partition | None) -> list[Region]:
    """The whole image as regions: the files, and names for everything between them."""
    taken = sorted({each for each in files if each.length})
    if esp:
        taken.append(Region(esp.offset, esp.length, AREA_ESP))
        taken.sort()
    found: list[Region] = []
    position = 0
    for region in [*taken, Region(size, 0, "")]:
        if region.offset > position:
            found += _gap(position, min(region.offset, size), found, size)
        # Files of the same content may share their bytes.
        if region.length and region.offset >= position:
            found.append(region)
        position = max(position, region.offset + region.length)
    return found


def _gap(start: int, end: int, before: Sequence[Region], size: int) -> list[Region]:
    if start == 0 and end > SYSTEM_AREA:
        rest = Region(SYSTEM_AREA, end - SYSTEM_AREA, AREA_DIRECTORIES)
        return [Region(0, SYSTEM_AREA, AREA_SYSTEM), rest]
    if before and before[-1].name == AREA_ESP and end == size:
        return [Region(start, end - start, AREA_BACKUP)]
    if end - start >= SECTOR and before and not any(each.name.startswith("/") for each in before):
        return [Region(start, end - start, AREA_DIRECTORIES)]
    behind = f" behind {before[-1].name}" if before else ""
    return [Region(start, end - start, AREA_PADDING + behind)]


def read_gpt(file: BinaryIO, size: int) -> tuple[list[Partition], list[str]]:
    """The partitions, and what is wrong with protective MBR, primary and backup table (UEFI specification, 5.3)."""
    file.seek(0)
    record = file.read(LBA)
    problems = []
    if record[510:512] != b"\x55\xaa":
        problems.append(f"{AREA_SYSTEM}: no boot signature")
    types = {record[446 + 16 * number + 4] for number in range(4)}
    if 0xEE not in types:
        problems.append(f"{AREA_SYSTEM}: no protective partition (type 0xee)")
    if not any(record[446 + 16 * number] == 0x80 for number in range(4)):
        problems.append(f"{AREA_SYSTEM}: no partition is marked bootable, as some BIOSes want it of a USB stick")
    partitions, other, primary = _read_table(file, LBA, size)
    problems += [f"{AREA_SYSTEM}: {problem}" for problem in primary]
    if other:
        # It stands before the padding that CD drives want, so not at the very end.
        backup_partitions, _, backup = _read_table(file, other, size)
        problems += [f"{AREA_BACKUP}: {problem}" for problem in backup]
        if not primary and not backup and partitions != backup_partitions:
            problems.append(f"{AREA_BACKUP}: differs from the primary one")
    return partitions, problems


def _read_table(file: BinaryIO, offset: int, size: int) -> tuple[list[Partition], int, list[str]]:
    """Partitions, where the other copy stands, and problems."""
    file.seek(offset)
    header = file.read(92)
    if len(header) < 92 or header[:8] != b"EFI PART":
        return [], 0, ["no GUID partition table"]
    fields = struct.unpack("<8sIIIIQQQQ16sQIII", header)
    (_, _, length, checksum, _, own, other, first, last, _, entries_lba, count, entry_size, entries_checksum) = fields
    problems = []
    if length != 92 or zlib.crc32(header[:16] + bytes(4) + header[20:]) != checksum:
        problems.append("the checksum of the header is wrong")
    if own * LBA != offset or last * LBA >= size or first > last:
        problems.append("the header names other sectors")
    if entry_size != 128 or count > 256 or entries_lba * LBA >= size:
        return [], 0, [*problems, "the header is damaged"]
    file.seek(entries_lba * LBA)
    entries = file.read(count * entry_size)
    if zlib.crc32(entries) != entries_checksum:
        problems.append("the checksum of the entries is wrong")
    found = []
    for number in range(len(entries) // 128):
        kind, _, start, end = struct.unpack("<16s16sQQ", entries[number * 128 : number * 128 + 48])
        if any(kind):
            found.append(Partition(number + 1, uuid.UUID(bytes_le=kind), start * LBA, (end - start + 1) * LBA))
            if end * LBA + LBA > size:
                problems.append(f"partition {number + 1} reaches beyond the end")
    return found, other * LBA, problems


def pieces(file: BinaryIO, regions: Sequence[Region]) -> Iterator[bytes]:
    """The bytes of these regions, one after the other, in chunks."""
    for region in regions:
        file.seek(region.offset)
        left = region.length
        while left:
            data = file.read(min(CHUNK, left))
            if not data:
                return
            left -= len(data)
            yield data


def digest(path: Path, regions: Sequence[Region]) -> str:
    """SHA-256 in hex of these regions together."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        for data in pieces(file, regions):
            found.update(data)
    return found.hexdigest()


def read_file(path: Path, regions: Sequence[Region], limit: int = 64 << 20) -> bytes:
    """The content of one small file of the ISO, `limit` bytes at most."""
    with path.open("rb") as file:
        data = b""
        for piece in pieces(file, regions):
            data += piece
            if len(data) > limit:
                break
        return data[:limit]


def esp_files(path: Path, esp: Partition) -> dict[str, bytes]:
    """Every file of the EFI system partition, by its path in lower case. Raises VerificationError."""
    from dissect.fat import FATFS

    with path.open("rb") as file:
        file.seek(esp.offset)
        image = io.BytesIO(file.read(esp.length))
    try:
        return dict(_fat_files(FATFS(image).get(""), ""))
    except Exception as error:  # a broken file system makes the library fail in any way
        raise VerificationError(f"{AREA_ESP}: cannot be read: {error}") from error


def _fat_files(folder: Any, parent: str, depth: int = 0) -> Iterator[tuple[str, bytes]]:
    if depth > 16:
        raise ValueError("folders within folders without end")
    for entry in folder.iterdir():
        if entry.name in {".", ".."} or entry.is_volume_id():
            continue
        path = f"{parent}/{entry.name.lower()}"
        if entry.is_directory():
            yield from _fat_files(entry, path, depth + 1)
        else:
            with contextlib.closing(entry.open()) as file:
                yield path, file.read()
