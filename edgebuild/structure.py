"""Whether an ISO is what it should be: every boot path, the root file system, the site's files. Names every flaw."""

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgebuild import squashfs
from edgebuild.errors import VerificationError
from edgebuild.isofile import AREA_ESP, BIOS, SECTOR, UEFI, BootEntry, Iso, digest, esp_files, read_file

USER_DATA = "/files-iso/config.yaml"
MENU = "/boot/grub2/grub.cfg"
ROOT = "/rootfs.squashfs"
EFI_NAMES = {"amd64": "x64", "arm64": "aa64"}
PE_MACHINES = {"amd64": 0x8664, "arm64": 0xAA64}
INITRD_MAGIC = (b"070701", b"\x1f\x8b", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"\x02\x21\x4c\x18", b"BZh")
SHIM_SIGN = b"SHIM_LOCK"  # in the binary of every shim


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What is asked of an ISO; `files` is SHA-256 in hex by path. Empty values are not checked."""

    arch: str = ""
    label: str = ""
    compressor: str = ""
    block_size: int = 0
    files: Mapping[str, str] = field(default_factory=dict)


def check_iso(path: Path, iso: Iso, expected: Expected) -> list[str]:
    """Everything wrong with the ISO, each with the name of the part."""
    return [
        *iso.problems,
        *_label_problems(path, iso, expected),
        *_bios_problems(path, iso, expected),
        *_uefi_problems(path, iso, expected),
        *_system_problems(path, iso, expected),
        *_file_problems(path, iso, expected),
    ]


def site_problems(path: Path, iso: Iso, expected: Expected) -> list[str]:
    """Everything wrong with what differs from site to site: boot menu and user-data."""
    return [*_label_problems(path, iso, expected), *_file_problems(path, iso, expected)]


def architecture(iso: Iso) -> str:
    """What the ISO is for, by its boot entries."""
    return "amd64" if any(entry.platform == BIOS for entry in iso.boot_entries) else "arm64"


def _label_problems(path: Path, iso: Iso, expected: Expected) -> Iterator[str]:
    if expected.label and iso.label != expected.label:
        yield f"volume label: it is {iso.label!r}, and should be {expected.label!r}"
    if MENU not in iso.files:
        yield f"{MENU}: missing"
        return
    text = read_file(path, iso.files[MENU]).decode("utf-8", "replace")
    for label in sorted(set(re.findall(r"CDLABEL=(\S+)", text)) - {iso.label}):
        yield f"{MENU}: looks for the volume {label}, and the ISO is {iso.label!r}"
    named = set(re.findall(r"(?:linux|initrd)\S*\s+\(\$root\)(/\S+)", text))
    named |= {f"/{name.lstrip('/')}" for name in re.findall(r"rd\.live\.squashimg=(\S+)", text)}
    for name in sorted(named - iso.files.keys()):
        yield f"{MENU}: names {name}, which is missing"


def _entry(iso: Iso, platform: int) -> BootEntry | None:
    return next((entry for entry in iso.boot_entries if entry.platform == platform), None)


def _bios_problems(path: Path, iso: Iso, expected: Expected) -> Iterator[str]:
    if (expected.arch or architecture(iso)) != "amd64":
        return
    entry, image = _entry(iso, BIOS), iso.files.get("/boot/eltorito.img")
    if entry is None or not entry.bootable:
        yield "El Torito: no bootable entry for BIOS"
    elif not image or entry.offset != image[0].offset:
        yield "El Torito: the BIOS entry does not lead to /boot/eltorito.img"
    else:
        data = read_file(path, image)
        descriptor, own, length, checksum = struct.unpack_from("<IIII", data, 8)
        padded = data[64:] + bytes(-len(data) % 4)
        actual = sum(struct.unpack(f"<{len(padded) // 4}I", padded)) & 0xFFFFFFFF
        if (descriptor, own * SECTOR, length, checksum) != (16, image[0].offset, len(data), actual):
            yield "/boot/eltorito.img: its boot information table is wrong"


def _uefi_problems(path: Path, iso: Iso, expected: Expected) -> Iterator[str]:
    arch = expected.arch or architecture(iso)
    entry, esp = _entry(iso, UEFI), iso.esp
    if esp is None:
        yield f"{AREA_ESP}: the partition table has none"
        return
    if entry is None or not entry.bootable:
        yield "El Torito: no bootable entry for UEFI"
    elif entry.offset != esp.offset:
        yield f"El Torito: the UEFI entry does not lead to the {AREA_ESP}"
    try:
        files = esp_files(path, esp)
    except VerificationError as error:
        yield error.message
        return
    loader = f"/efi/boot/boot{EFI_NAMES[arch]}.efi"
    if loader not in files:
        yield f"{AREA_ESP}: {loader} is missing"
        return
    if _pe_machine(files[loader]) != PE_MACHINES[arch]:
        yield f"{AREA_ESP}: {loader} is no UEFI program for {arch}"
    grub = f"/efi/boot/grub{EFI_NAMES[arch]}.efi"
    if SHIM_SIGN in files[loader] and grub not in files:
        yield f"{AREA_ESP}: {loader} is a shim, and {grub}, which it starts, is missing"
    for name, parts in iso.files.items():
        inside = files.get(name.lower())
        if name.lower().startswith("/efi/") and (inside is None or inside != read_file(path, parts)):
            yield f"{AREA_ESP}: {name} is {'missing' if inside is None else 'another than on the ISO'}"


def _pe_machine(data: bytes) -> int:
    """The machine of a PE program; 0 when it is none."""
    if data[:2] != b"MZ" or len(data) < 0x40:
        return 0
    (offset,) = struct.unpack_from("<I", data, 0x3C)
    if data[offset : offset + 4] != b"PE\0\0":
        return 0
    (machine,) = struct.unpack_from("<H", data, offset + 4)
    return int(machine)


def _system_problems(path: Path, iso: Iso, expected: Expected) -> Iterator[str]:
    arch = expected.arch or architecture(iso)
    for name in ("/boot/kernel", "/boot/initrd", ROOT):
        if name not in iso.files or not iso.files[name]:
            yield f"{name}: missing"
    if iso.files.get("/boot/kernel"):
        head = read_file(path, iso.files["/boot/kernel"], 1024)
        if not (head[0x202:0x206] == b"HdrS" if arch == "amd64" else head[:2] in {b"MZ", b"\x1f\x8b"}):
            yield f"/boot/kernel: no Linux kernel for {arch}"
    if iso.files.get("/boot/initrd") and not read_file(path, iso.files["/boot/initrd"], 16).startswith(INITRD_MAGIC):
        yield "/boot/initrd: no initrd"
    if parts := iso.files.get(ROOT):
        head_block, problems = squashfs.check(path, parts[0])
        yield from (f"{ROOT}: {problem}" for problem in problems)
        if head_block and expected.compressor and head_block.compressor != expected.compressor:
            yield f"{ROOT}: compressed with {head_block.compressor}, and {expected.compressor} was asked for"
        if head_block and expected.block_size and head_block.block_size != expected.block_size:
            yield f"{ROOT}: blocks of {head_block.block_size} bytes, and {expected.block_size} were asked for"


def _file_problems(path: Path, iso: Iso, expected: Expected) -> Iterator[str]:
    if USER_DATA not in iso.files:
        yield f"{USER_DATA}: the user-data is missing"
    elif not read_file(path, iso.files[USER_DATA], 64).startswith(b"#cloud-config"):
        yield f"{USER_DATA}: does not start with #cloud-config"
    for name, wanted in expected.files.items():
        if name not in iso.files:
            if name != USER_DATA:
                yield f"{name}: missing"
        elif digest(path, iso.files[name]) != wanted:
            yield f"{name}: other content than it was made from"
