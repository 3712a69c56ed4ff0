"""What a push is made of: an archive put together again, layers packed, jobs in threads."""

import base64
import gzip
import hashlib
import json
import random
import threading
from concurrent.futures import CancelledError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgebuild import layerstore, packing
from edgebuild.crew import Crew
from edgebuild.imagescan import Image

DIGESTS = ["sha256:" + digit * 64 for digit in "12"]


def split(*entries: dict[str, Any]) -> bytes:
    """What the engine keeps beside a layer's files."""
    return gzip.compress("".join(json.dumps(each) + "\n" for each in entries).encode())


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_parts_of_an_archive() -> None:
    kept = split(
        {"type": 2, "payload": encoded(b"header"), "position": 0},
        {"type": 1, "name": "etc/a", "size": 3, "payload": "crc", "position": 1},
        {"type": 2, "payload": None},
        {"type": 1, "name": "etc/empty"},
        {"type": 1, "name_raw": encoded(b"etc/\xff"), "size": 4},
    )
    assert list(layerstore.parts(kept)) == [(b"header", 0), (b"etc/a", 3), (b"", 0), (b"etc/\xff", 4)]


@pytest.mark.parametrize(
    "kept", [b"", b"no gzip", split({"type": 2}), gzip.compress(b"{"), gzip.compress(b"[]\n"), split({"x": 1})[:-9]]
)
def test_another_form_of_storage(kept: bytes) -> None:
    if not kept:
        assert list(layerstore.parts(kept)) == []  # its digest will not be the layer's
        return
    with pytest.raises(layerstore.NotReadable, match="in another form"):
        list(layerstore.parts(kept))


def test_pieces_are_joined_and_cut() -> None:
    size = layerstore.PIECE_BYTES
    pieces = list(layerstore.gathered(iter([b"a", b"b" * size, b"c"])))
    assert [len(piece) for piece in pieces] == [size, 2]
    assert b"".join(pieces) == b"a" + b"b" * size + b"c"


def test_layers_have_the_digest_of_the_stack() -> None:
    """As the engine names its folders."""
    facts = {
        "RootFS": {"Layers": DIGESTS},
        "GraphDriver": {"Name": "overlay2", "Data": {"UpperDir": "/2/diff", "LowerDir": "/1/diff"}},
    }
    layers = layerstore.layers_of(Image("x", "sha256:x", facts))
    assert [layer.folder for layer in layers] == ["/1/diff", "/2/diff"]
    assert layers[0].chain == DIGESTS[0]
    assert layers[1].chain == "sha256:" + hashlib.sha256(f"{DIGESTS[0]} {DIGESTS[1]}".encode()).hexdigest()


def test_a_storage_that_is_not_told() -> None:
    facts = {"RootFS": {"Layers": DIGESTS}, "GraphDriver": {"Name": "btrfs", "Data": None}}
    with pytest.raises(layerstore.NotReadable, match="where the layers of x are"):
        layerstore.layers_of(Image("x", "sha256:x", facts))


@pytest.mark.parametrize(
    ("endpoint", "told", "expected"),
    [
        ("unix:///var/run/docker.sock", {"Driver": "overlay2", "DriverStatus": [["Backing", "extfs"]]}, True),
        ("tcp://far:2375", {"Driver": "overlay2"}, False),
        ("unix:///x", {"Driver": "btrfs", "DriverStatus": None}, False),
        (
            "unix:///x",
            {"Driver": "overlayfs", "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]},
            False,
        ),
    ],
)
def test_only_an_engine_here_that_unpacks_layers_is_read(
    endpoint: str, told: dict[str, Any], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layerstore, "endpoint", lambda: endpoint)
    client = SimpleNamespace(info=lambda: {"DockerRootDir": "/engine", **told})
    assert layerstore.storage(client) == (Path("/engine/image/overlay2") if expected else None)


def test_packed_layers_unpack_to_the_same(tmp_path: Path) -> None:
    """Also what does not shrink, and an empty one; the same bytes each time, and nothing else in the folder."""
    contents = {
        DIGESTS[0]: [b"text " * 200_000, random.Random(1).randbytes(1 << 20), b"end"],  # noqa: S311
        DIGESTS[1]: [],
        "sha256:" + "3" * 64: [b"x"],
    }
    first = dict(packing.pack(contents.items(), tmp_path / "a"))
    again = dict(packing.pack(contents.items(), tmp_path / "b"))
    assert list(first) == list(contents)
    for layer, packed in first.items():
        data = packed.file.read_bytes()
        assert gzip.decompress(data) == b"".join(contents[layer])
        assert packed.digest == again[layer].digest == "sha256:" + hashlib.sha256(data).hexdigest()
        assert packed.size_bytes == len(data)
        assert packing.waiting(tmp_path / "a", layer) == packed
        assert b"".join(packed.pieces(0)) == data
        assert b"".join(packed.pieces(5)) == data[5:]
    assert sorted(file.suffix for file in (tmp_path / "a").iterdir()) == [".gz"] * 3
    assert len(first[DIGESTS[0]].file.read_bytes()) < 1.01 * (1 << 20)


def test_a_layer_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Any:
        yield b"x" * 100
        raise layerstore.NotReadable("gone")

    layers = packing.pack([(DIGESTS[0], [b"whole"]), (DIGESTS[1], broken())], tmp_path)
    with pytest.raises(layerstore.NotReadable):
        list(layers)
    assert packing.waiting(tmp_path, DIGESTS[1]) is None
    assert not list(tmp_path.glob(".*"))


def test_a_job_may_wait_for_those_before_it() -> None:
    with Crew(1) as crew:
        first = crew.begin(int, "1")
        second = crew.begin(lambda: first.result() + 1)
        third = crew.begin(int, "no number")
        assert second.result() == 2
        assert isinstance(third.exception(), ValueError)


def test_so_many_jobs_at_a_time() -> None:
    together, lock, running, most = threading.Barrier(3), threading.Lock(), 0, 0

    def work(number: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if number < 3:
            together.wait()
        with lock:
            running -= 1

    with Crew(3) as crew:
        jobs = [crew.begin(work, number) for number in range(30)]
        for job in jobs:
            job.result()
    assert most == 3


def test_no_further_job_begins_after_an_interruption() -> None:
    begun, going_on, later = threading.Event(), threading.Event(), []

    def wait() -> None:
        begun.set()
        going_on.wait()

    def interrupted() -> None:
        with Crew(1) as crew:
            crew.begin(wait)
            later.append(crew.begin(int, "1"))
            begun.wait()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    going_on.set()
    with pytest.raises(CancelledError):
        later[0].result()
