"""The folder of a mirror: what is listed, kept, continued and found wrong."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgebuild.errors import InputError, VerificationError
from edgebuild.imagetree import MANIFEST, Descriptor, Manifest
from edgebuild.layout import Entry, Layout
from edgebuild.sums import digest_of

BLOB = b"a layer" * 1000
PART = Descriptor(digest_of(BLOB), len(BLOB))


def image(layout: Layout, name: str, note: str) -> Entry:
    """An image of BLOB, put into the folder."""
    part = {"digest": PART.digest, "size": PART.size, "mediaType": "x"}
    data = json.dumps({"config": part, "layers": [part], "note": note}).encode()
    manifest = Manifest(digest_of(data), MANIFEST, data)
    layout.keep(manifest)
    return Entry(name, manifest.descriptor, ("linux/amd64",))


def read(offset: int) -> Iterator[bytes]:
    yield BLOB[offset:]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    found = Layout(tmp_path / "mirror")
    found.begin()
    return found


def test_one_name_with_two_digests_is_there_twice_and_replaced_later(layout: Layout) -> None:
    layout.add([image(layout, "a/b:1", "old"), image(layout, "a/c:1", "other")])
    first, second = image(layout, "a/b:1", "one environment"), image(layout, "a/b:1", "another")
    layout.add([first, second])
    listed = [(each.name, each.root.digest) for each in layout.entries()]
    assert sorted(listed)[:2] == sorted([("a/b:1", first.root.digest), ("a/b:1", second.root.digest)])
    assert [name for name, _ in listed] == ["a/b:1", "a/b:1", "a/c:1"]


def test_a_blob_is_continued_and_checked(layout: Layout) -> None:
    partial = layout.path(PART.digest).with_name(f".{PART.digest[7:]}.partial")
    partial.write_bytes(BLOB[:5000])
    assert layout.fetch(PART, read) == 2000
    assert layout.has(PART)
    assert layout.flaw(PART) == ""
    partial.write_bytes(BLOB + b"more")
    assert layout.fetch(PART, read) == 7000
    with pytest.raises(VerificationError, match="other bytes came"):
        layout.fetch(PART, lambda _: iter([b"x" * len(BLOB)]))
    assert not partial.exists()


def test_every_problem_is_named(layout: Layout) -> None:
    layout.add([image(layout, "a/b:1", "x")])
    layout.fetch(PART, read)
    layout.sum_up()
    assert layout.problems() == []
    layout.path(PART.digest).write_bytes(BLOB[:-1])
    (layout.folder / "wheels").mkdir()
    (layout.folder / "wheels/stray.whl").touch()
    assert layout.problems() == [
        f"blobs/sha256/{PART.digest[7:]}: is not what was built: its checksum differs",
        "wheels/stray.whl: is not in SHA256SUMS",
        f"a/b:1: blob {PART.digest} has 6999 of its 7000 bytes",
    ]
    [entry] = layout.entries()
    layout.path(entry.root.digest).unlink()
    assert f"a/b:1: manifest {entry.root.digest} is missing" in layout.problems()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"manifests": [{}]}', '{"manifests": 1}', '{"manifests": [1]}', "{"]
)
def test_an_index_that_is_none(layout: Layout, text: str) -> None:
    (layout.folder / "index.json").write_text(text)
    with pytest.raises(VerificationError, match="damaged or cut off"):
        layout.entries()


@pytest.mark.parametrize("name", ["a/../b:1", "-a", "a b", "a\nb", ""])
def test_a_name_that_would_lead_elsewhere(layout: Layout, name: str) -> None:
    layout.add([image(layout, name, "x")])
    with pytest.raises(VerificationError, match="damaged"):
        layout.entries()


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(InputError, match="neither empty nor a mirror"):
        Layout(tmp_path).begin()
    with pytest.raises(InputError, match="is no mirror"):
        Layout(tmp_path).entries()
