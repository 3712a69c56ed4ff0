"""Partition tables and regions, from bytes made here."""

import io
import struct
import uuid
import zlib
from typing import Any

import pytest

from edgebuild.errors import VerificationError
from edgebuild.isofile import (
    AREA_BACKUP,
    AREA_DIRECTORIES,
    AREA_ESP,
    AREA_SYSTEM,
    ESP_TYPE,
    Partition,
    Region,
    cover,
    read_gpt,
)
from edgebuild.squashfs import SUPERBLOCK, read_superblock

SECTORS = 200


def table(own: int, other: int, entries_at: int, **change: Any) -> tuple[bytes, bytes]:
    """Header and entries of a GPT with one ESP."""
    entries = struct.pack("<16s16sQQQ72s", ESP_TYPE.bytes_le, bytes(16), 100, 119, 0, b"").ljust(128 * 4, b"\0")
    values = {"checksum": zlib.crc32(entries), "last": SECTORS - 10, **change}
    fields = (b"EFI PART", 0x10000, 92, 0, 0, own, other, 64, values["last"], bytes(16), entries_at, 4, 128)
    header = struct.pack("<8sIIIIQQQQ16sQIII", *fields, values["checksum"])
    return header[:16] + struct.pack("<I", zlib.crc32(header)) + header[20:], entries


def disk(**change: Any) -> bytearray:
    image = bytearray(SECTORS * 512)
    image[446:462] = struct.pack("<B3sB3sII", 0x80, b"", 0xEE, b"", 1, SECTORS - 1)
    image[510:512] = b"\x55\xaa"
    for own, other, entries_at in ((1, SECTORS - 3, 2), (SECTORS - 3, 1, SECTORS - 7)):
        header, entries = table(own, other, entries_at, **change)
        image[own * 512 : own * 512 + 92] = header
        image[entries_at * 512 : entries_at * 512 + len(entries)] = entries
    return image


def problems(image: bytearray) -> list[str]:
    return read_gpt(io.BytesIO(image), len(image))[1]


def test_a_sound_table() -> None:
    image = disk()
    partitions, found = read_gpt(io.BytesIO(image), len(image))
    assert found == []
    assert partitions == [Partition(1, uuid.UUID(str(ESP_TYPE)), 51200, 10240)]


@pytest.mark.parametrize(
    ("offset", "says"),
    [
        (510, f"{AREA_SYSTEM}: no boot signature"),
        (446, f"{AREA_SYSTEM}: no partition is marked bootable"),
        (450, f"{AREA_SYSTEM}: no protective partition"),
        (512, f"{AREA_SYSTEM}: no GUID partition table"),
        (512 + 60, f"{AREA_SYSTEM}: the checksum of the header is wrong"),
        (1024 + 200, f"{AREA_SYSTEM}: the checksum of the entries is wrong"),
        ((SECTORS - 3) * 512 + 60, f"{AREA_BACKUP}: the checksum of the header is wrong"),
        ((SECTORS - 7) * 512 + 40, f"{AREA_BACKUP}: the checksum of the entries is wrong"),
    ],
)
def test_each_damaged_byte_is_found(offset: int, says: str) -> None:
    image = disk()
    image[offset] ^= 0x11
    assert any(problem.startswith(says) for problem in problems(image)), problems(image)


def test_a_table_that_reaches_beyond_the_end() -> None:
    assert any("the header names other sectors" in each for each in problems(disk(last=SECTORS + 5)))
    assert any("reaches beyond the end" in each for each in read_gpt(io.BytesIO(disk()), 110 * 512)[1])


def test_regions_cover_everything_once() -> None:
    esp = Partition(2, ESP_TYPE, 100_000, 4096)
    files = [Region(60_000, 100, "/a"), Region(61_440, 5000, "/b"), Region(61_440, 5000, "/same"), Region(0, 0, "/c")]
    found = cover(110_000, files, esp)
    assert [each.offset for each in found] == [0, *(each.offset + each.length for each in found[:-1])]
    assert found[-1].offset + found[-1].length == 110_000
    assert [each.name for each in found if each.length] == [
        AREA_SYSTEM,
        AREA_DIRECTORIES,
        "/a",
        "padding behind /a",
        "/b",
        "padding behind /b",
        AREA_ESP,
        AREA_BACKUP,
    ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({0: 1}, "does not start like a squashfs"),
        ({3: 5000}, "a block size of 5000 does not exist"),
        ({5: 9}, "compressor 9 does not exist"),
    ],
)
def test_superblock(change: dict[int, int], says: str) -> None:
    fields = [0x73717368, 5, 0, 1 << 20, 0, 6, 20, 0, 1, 4, 0, *[0] * 8]
    assert read_superblock(SUPERBLOCK.pack(*fields)).compressor == "zstd"
    for position, value in change.items():
        fields[position] = value
    with pytest.raises(VerificationError, match=says):
        read_superblock(SUPERBLOCK.pack(*fields))
    with pytest.raises(VerificationError, match="cut off"):
        read_superblock(b"hsqs")
