"""The root file system inside an ISO: its superblock and tables checked, its files compared. No tool is needed."""

import hashlib
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgebuild.errors import VerificationError
from edgebuild.isofile import Region

# From the kernel's fs/squashfs/squashfs_fs.h.
SUPERBLOCK = struct.Struct("<IIIIIHHHHHHQQQQQQQQ")
MAGIC = 0x73717368
COMPRESSORS = {1: "gzip", 2: "lzma", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}
METADATA_BYTES = 8192
UNCOMPRESSED = 1 << 15
DATA_UNCOMPRESSED = 1 << 24
NOTHING = 0xFFFFFFFFFFFFFFFF


@dataclass(frozen=True)
class Superblock:
    """The head of a squashfs. Offsets are in bytes from its start."""

    inodes: int
    epoch: int
    block_size: int
    compressor: str
    bytes_used: int
    fragments: int
    ids: int
    id_table: int
    inode_table: int
    directory_table: int
    fragment_table: int
    lookup_table: int


def read_superblock(head: bytes) -> Superblock:
    """Raises VerificationError when these bytes start no squashfs 4."""
    if len(head) < SUPERBLOCK.size:
        raise VerificationError("it is cut off in its head")
    (magic, inodes, epoch, block_size, fragments, compressor, block_log, _, ids, major, _, _, used, *tables) = (
        SUPERBLOCK.unpack(head[: SUPERBLOCK.size])
    )
    if magic != MAGIC or major != 4:
        raise VerificationError("it does not start like a squashfs")
    if block_size != 1 << block_log or not 4096 <= block_size <= 1 << 20:
        raise VerificationError(f"a block size of {block_size} does not exist")
    name = COMPRESSORS.get(compressor)
    if name is None:
        raise VerificationError(f"compressor {compressor} does not exist")
    id_table, _, inode_table, directory_table, fragment_table, lookup_table = tables
    return Superblock(
        inodes, epoch, block_size, name, used, fragments, ids, id_table, inode_table, directory_table,
        fragment_table, lookup_table,
    )  # fmt: skip


def check(path: Path, region: Region) -> tuple[Superblock | None, list[str]]:
    """The superblock of the squashfs in `region` of a file, and what is wrong with it and with its tables."""
    with path.open("rb") as file:
        file.seek(region.offset)
        try:
            head = read_superblock(file.read(SUPERBLOCK.size))
        except VerificationError as error:
            return None, [error.message]
        if head.bytes_used > region.length:
            return head, [f"it is cut off: {region.length} bytes are there of {head.bytes_used}"]
        try:
            return head, list(_table_problems(_Reader(file, region, head), head))
        except Exception as error:  # what is broken can fail in any way in a decompressor
            return head, [f"its tables cannot be read: {error}"]


class _Reader:
    """Reads metadata blocks below `offset` of a file."""

    def __init__(self, file: Any, region: Region, head: Superblock) -> None:
        from dissect.squashfs import compression

        number = next(number for number, name in COMPRESSORS.items() if name == head.compressor)
        self.file, self.start, self.used = file, region.offset, head.bytes_used
        self.compression = compression.initialize(number, None)

    def at(self, offset: int, length: int) -> bytes:
        if offset + length > self.used:
            raise ValueError(f"byte {offset} lies beyond the end")
        self.file.seek(self.start + offset)
        data: bytes = self.file.read(length)
        if len(data) < length:
            raise ValueError(f"cut off at byte {offset}")
        return data

    def block(self, offset: int) -> tuple[bytes, int]:
        """One metadata block, and where the next one starts."""
        (head,) = struct.unpack("<H", self.at(offset, 2))
        length = head & ~UNCOMPRESSED
        data = self.at(offset + 2, length)
        if not head & UNCOMPRESSED:
            data = self.compression.decompress(data, METADATA_BYTES)
        if not 0 < len(data) <= METADATA_BYTES:
            raise ValueError(f"the block at byte {offset} has {len(data)} bytes")
        return data, offset + 2 + length

    def index(self, offset: int, entries: int, entry_size: int) -> list[int]:
        """Where the blocks of a table start."""
        count = -(-entries * entry_size // METADATA_BYTES)
        return list(struct.unpack(f"<{count}Q", self.at(offset, 8 * count)))


def _table_problems(reader: _Reader, head: Superblock) -> Iterator[str]:
    """Inode and directory table without a gap, and every fragment inside the file system."""
    ids = reader.index(head.id_table, head.ids, 4)
    fragments = reader.index(head.fragment_table, head.fragments, 16) if head.fragments else []
    lookup = reader.index(head.lookup_table, head.inodes, 8) if head.lookup_table != NOTHING else []
    end = min([*ids, *fragments, *lookup])
    for name, start, stop in (
        ("inode table", head.inode_table, head.directory_table),
        ("directory table", head.directory_table, end),
    ):
        position = start
        while position < stop:
            data, position = reader.block(position)
            if position < stop and len(data) != METADATA_BYTES:
                yield f"{name}: a short block before byte {position}"
        if position != stop:
            yield f"{name}: it ends at byte {position}, and should at {stop}"
    for block in [*ids, *lookup]:
        reader.block(block)
    left = head.fragments
    for block in fragments:
        data, _ = reader.block(block)
        for number in range(min(left, METADATA_BYTES // 16)):
            start, size, _ = struct.unpack_from("<QII", data, number * 16)
            if start + (size & ~DATA_UNCOMPRESSED) > head.inode_table:
                yield f"a fragment at byte {start} reaches into the tables"
        left -= METADATA_BYTES // 16


@dataclass(frozen=True)
class Entry:
    """One file of a root file system; `content` is a hash, a link's target or a device number."""

    kind: str
    mode: int
    owner: tuple[int, int]
    mtime: int
    size: int
    content: str


def entries(path: Path, region: Region) -> Iterator[tuple[str, Entry]]:
    """Everything in the squashfs, read completely. Raises VerificationError at what cannot be read."""
    from dissect.squashfs import SquashFS
    from dissect.util.stream import RangeStream

    with path.open("rb") as file:
        try:
            yield from _walk(SquashFS(RangeStream(file, region.offset, region.length)).root, "")
        except OSError:
            raise
        except Exception as error:  # what is broken can fail in any way in a decompressor
            raise VerificationError(f"the squashfs cannot be read: {error!r}") from error


def _walk(folder: Any, parent: str) -> Iterator[tuple[str, Entry]]:
    for node in sorted(folder.iterdir(), key=lambda node: str(node.name)):
        path = f"{parent}/{node.name}"
        content = ""
        if node.is_file():
            with node.open() as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
        elif node.is_symlink():
            content = str(node.link)
        elif hasattr(node.header, "rdev"):
            content = str(node.header.rdev)
        kind = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}.get(node.type, "special")
        size = int(node.size or 0) if node.is_file() else 0
        yield path, Entry(kind, node.mode & 0o7777, (node.uid, node.gid), int(node.header.mtime), size, content)
        if node.is_dir():
            yield from _walk(node, path)


def differences(first: dict[str, Entry], second: dict[str, Entry]) -> Iterator[str]:
    """What differs between two trees, a line each."""
    for path in sorted(first.keys() | second.keys()):
        one, other = first.get(path), second.get(path)
        if one is None or other is None:
            yield f"{path}: only in the {'second' if one is None else 'first'} build"
            continue
        different = [
            name
            for name in ("kind", "mode", "owner", "mtime", "size", "content")
            if getattr(one, name) != getattr(other, name)
        ]
        if different:
            yield f"{path}: {', '.join(different)} differ"
