"""What an ISO can be copied for, and what is put into the copy; the files are real, the ISO is a few sectors."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebuild.cloudconfig import MAX_BYTES
from edgebuild.contents import Contents
from edgebuild.iso import PARTITION_OFFSET, IsoRequest
from edgebuild.isofile import SECTOR, SYSTEM_AREA
from edgebuild.padding import STEP, padded
from edgebuild.respin import Change, find_changes, layout, patches_of
from edgebuild.results import Artifact
from edgebuild.yamltext import Loader, read_yaml


@pytest.fixture
def request_of(tmp_path: Path) -> IsoRequest:
    overlay = tmp_path / "overlay"
    (overlay / "etc").mkdir(parents=True)
    (overlay / "boot").mkdir()
    (overlay / "etc/motd").write_text("welcome\n")
    (overlay / "etc/other").write_text("welcome\n")
    (overlay / "boot/own").write_text("x")
    (tmp_path / "grub.cfg").write_bytes(padded(b"# menu\n"))
    (tmp_path / "user-data").write_bytes(padded(b"#cloud-config\n"))
    return IsoRequest(
        image="sha256:tree", arch="amd64", grub_cfg=tmp_path / "grub.cfg", user_data=tmp_path / "user-data",
        overlay=overlay, epoch=1, content=(tmp_path / "grub.cfg",),
    )  # fmt: skip


def key(request: IsoRequest, tmp_path: Path) -> str:
    return layout(request, Contents(tmp_path, tmp_path / "contents.json"))


def hard_link(folder: Path) -> None:
    (folder / "overlay/etc/other").unlink()
    (folder / "overlay/etc/other").hardlink_to(folder / "overlay/etc/motd")


SAME: list[Callable[[Path], Any]] = [
    lambda folder: (folder / "overlay/etc/motd").write_text("hi\n"),
    lambda folder: (folder / "overlay/etc/motd").write_text("x" * SECTOR),
    lambda folder: (folder / "overlay/etc/.gitkeep").write_text(""),
    lambda folder: (folder / "overlay/etc/motd").chmod(0o600),
    lambda folder: (folder / "user-data").write_bytes(padded(b"#cloud-config\nusers: []\n")),
]
OTHER: list[Callable[[Path], Any]] = [
    lambda folder: (folder / "overlay/etc/more").write_text("x"),
    lambda folder: (folder / "overlay/etc/motd").write_text("x" * (SECTOR + 1)),
    lambda folder: (folder / "overlay/etc/motd").write_text(""),
    lambda folder: (folder / "overlay/etc/motd").chmod(0o755),
    lambda folder: (folder / "overlay/etc/link").symlink_to("motd"),
    lambda folder: (folder / "overlay/etc/folder").mkdir(),
    lambda folder: (folder / "overlay/boot/own").write_text("y"),
    lambda folder: (folder / "grub.cfg").write_bytes(padded(b"# other content of a bundle\n")),
    lambda folder: (folder / "user-data").write_bytes(padded(b"x" * STEP)),
    hard_link,
]


@pytest.mark.parametrize("number", range(len(SAME)))
def test_what_can_be_put_in_is_no_part_of_the_layout(number: int, request_of: IsoRequest, tmp_path: Path) -> None:
    before = key(request_of, tmp_path)
    SAME[number](tmp_path)
    assert key(request_of, tmp_path) == before


@pytest.mark.parametrize("number", range(len(OTHER)))
def test_what_moves_anything_is_another_layout(number: int, request_of: IsoRequest, tmp_path: Path) -> None:
    before = key(request_of, tmp_path)
    OTHER[number](tmp_path)
    assert key(request_of, tmp_path) != before


def artifact(request: IsoRequest, **more: dict[str, Any]) -> Artifact:
    """An ISO on which every file of the request has two sectors, and other content."""
    names = ["/etc/motd", "/etc/other", "/boot/grub2/grub.cfg", "/files-iso/config.yaml"]
    parts = {
        name: {
            "name": name,
            "offset": (100 + 2 * number) * SECTOR,
            "length": 10 if number < 2 else STEP,
            "sha256": "",
        }
        for number, name in enumerate(names)
    }
    for name, part in more.items():
        parts[name] = {**parts[name], **part}
    return Artifact(name="iso", kind="iso", digest="", size_bytes=0, seconds=0, contents=list(parts.values()))


def test_changed_files_are_found(request_of: IsoRequest) -> None:
    changes = find_changes(request_of, artifact(request_of))
    assert changes is not None
    assert [change.name for change in changes] == [
        "/etc/motd", "/etc/other", "/boot/grub2/grub.cfg", "/files-iso/config.yaml",
    ]  # fmt: skip
    assert "#cloud-config" not in repr(changes)


def test_shared_bytes_and_other_sectors_are_not_changed(request_of: IsoRequest) -> None:
    assert find_changes(request_of, artifact(request_of, **{"/etc/motd": {"length": 3000}})) is None
    assert find_changes(request_of, artifact(request_of, **{"/etc/motd": {"offset": 102 * SECTOR}})) is None
    assert find_changes(request_of, artifact(request_of, **{"/etc/motd": {"name": "/gone"}})) is None


def both(number: int) -> bytes:
    return struct.pack("<I", number) + struct.pack(">I", number)


def source(tmp_path: Path, records: bytes) -> Path:
    file = tmp_path / "iso"
    file.write_bytes(bytes(SYSTEM_AREA) + records + bytes(100 * SECTOR - SYSTEM_AREA - len(records)))
    return file


def test_a_length_is_changed_in_all_directories(request_of: IsoRequest, tmp_path: Path) -> None:
    last = artifact(request_of)
    assert last.contents
    tree, partition = both(100) + both(10), both(100 - PARTITION_OFFSET) + both(10)
    file = source(tmp_path, b"abc" + tree + tree + b"d" + partition + partition)
    patches = list(patches_of(file, last, [Change("/etc/motd", b"hi\n", "", last.contents[0])]))
    assert patches[0].offset == 100 * SECTOR
    assert patches[0].data == b"hi\n" + bytes(SECTOR - 3)
    offsets = [SYSTEM_AREA + at for at in (11, 27, 44, 60)]
    assert [(each.offset, each.data) for each in patches[1:]] == [(at, both(3)) for at in offsets]


@pytest.mark.parametrize("copies", [0, 1, 3])
def test_unexpected_directories_are_left_alone(copies: int, request_of: IsoRequest, tmp_path: Path) -> None:
    last = artifact(request_of)
    assert last.contents
    file = source(tmp_path, (both(100) + both(10)) * copies)
    with pytest.raises(ValueError, match="directories"):
        list(patches_of(file, last, [Change("/etc/motd", b"hi\n", "", last.contents[0])]))


@given(st.binary(max_size=3 * STEP))
def test_padding_only_adds(text: bytes) -> None:
    whole = padded(text)
    assert len(whole) % STEP == 0
    assert len(text) < len(whole) <= len(text) + STEP + 3
    assert whole.startswith(text)
    assert not whole[len(text) :].strip(b"\n#")


@pytest.mark.parametrize(
    "end", ["key: |+\n  a\n\n", "key: |\n  a\n", "key: >-\n  a\n", "key: a\n", "key: [a,\n b]\n...\n"]
)
def test_padding_changes_no_value(end: str) -> None:
    text = f"#cloud-config\nname: b\n{end}"
    assert read_yaml(padded(text.encode()).decode(), Loader) == read_yaml(text, Loader)


def test_padding_never_reaches_what_kairos_ignores() -> None:
    for length in (MAX_BYTES - 1, MAX_BYTES - STEP, MAX_BYTES // STEP * STEP - 2):
        assert len(padded(b"x" * (length - 1) + b"\n")) < MAX_BYTES
