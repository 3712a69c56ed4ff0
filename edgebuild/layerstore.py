"""The bytes of layers and configurations as the engine keeps them, to send only what a registry lacks.

Docker's overlay2 keeps a layer unpacked, and beside it what else its archive held (tar-split). `docker save` puts
both together too, but for whole images at once, on the engine's disk. Read in a container, which root may do only.
"""

import base64
import contextlib
import fcntl
import gzip
import hashlib
import io
import json
import os
import select
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from edgebuild.container import container_argv
from edgebuild.engine import endpoint
from edgebuild.errors import EdgebuildError
from edgebuild.imagescan import Image
from edgebuild.localimages import stacks
from edgebuild.registry import engine_errors
from edgebuild.run import process, run

PIECE_BYTES = 1 << 20
READING = "reading-"  # names of folders that hold a pipe
POLL_SECONDS = 0.2  # between looks whether the container is still there
# First what is short, each with its length; then the content of the files that are named on standard input.
SCRIPT = r"""
set -eu
trap 'exit 143' TERM
exec > /output/pipe
for file in /images/* /splits/*; do wc -c < "$file"; cat "$file"; done
cd /layers
exec xargs -0 -r cat --
"""


class NotReadable(EdgebuildError):
    """The engine does not let its layers be read this way."""


@dataclass(frozen=True)
class Layer:
    """A layer of an image: its digest (diff id), the one of the stack up to it, and where its files are."""

    digest: str
    chain: str
    folder: str


def layers_of(image: Image) -> list[Layer]:
    """The image's layers, lowest first. Raises NotReadable when the engine does not tell where they are."""
    if len(image.folders) != len(image.layers):
        raise NotReadable(f"the engine does not tell where the layers of {image.name} are")
    return [Layer(*each) for each in zip(image.layers, stacks(image.layers), image.folders, strict=True)]


def storage(client: Any) -> Path | None:
    """Where an engine on this machine keeps what it knows of its layers; None when it does not unpack them."""
    if not endpoint().startswith("unix:"):
        return None  # an image on another machine would come here and go out again: let that engine push
    with engine_errors():
        told = client.info()
    # With containerd's storage layers stay packed, and the engine sends them as they are.
    contained = any("containerd" in str(each) for each in told.get("DriverStatus") or [])
    return None if contained or told.get("Driver") != "overlay2" else Path(told["DockerRootDir"], "image/overlay2")


def read_argv(
    image: str, name: str, store: Path, ids: Sequence[str], layers: Sequence[Layer], *, output: Path
) -> list[str]:
    """The container around cat; it reads files of every owner, and writes to the named pipe in `output` only.

    Docker's own way from a container's output to ours would copy every byte three times.
    """
    options = ["--interactive", "--user", "0:0", "--cap-add", "DAC_READ_SEARCH", "--entrypoint", "/bin/sh"]
    read = {f"/images/{number:05}": store / "imagedb/content/sha256" / _hex(id_) for number, id_ in enumerate(ids)}
    for number, layer in enumerate(layers):
        read[f"/splits/{number:05}"] = store / "layerdb/sha256" / _hex(layer.chain) / "tar-split.json.gz"
        read[f"/layers/{number}"] = Path(layer.folder)
    return container_argv(image, ["-c", SCRIPT], name=name, read=read, write={"/output": output}, options=options)


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


class LayerReader:
    """Configurations by image id; then each of the layers, once and in this order."""

    def __init__(
        self, child: "subprocess.Popen[bytes]", output: IO[bytes], ids: Sequence[str], layers: Sequence[Layer]
    ) -> None:
        self._child, self._output, self._layers = child, output, layers
        texts = [self._text() for _ in range(len(ids) + len(layers))]
        self.configurations = dict(zip(ids, texts, strict=False))
        self._splits = texts[len(ids) :]
        for id_, text in self.configurations.items():
            if hashlib.sha256(text).hexdigest() != _hex(id_):
                raise NotReadable(f"the engine's storage holds something else under {id_}")

    def layers(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Each layer's digest with its archive in pieces, to be read to its end. Raises NotReadable."""
        writer = threading.Thread(target=self._ask, daemon=True)
        writer.start()
        for layer, split in zip(self._layers, self._splits, strict=True):
            yield layer.digest, self._archive(layer, split)

    def close(self) -> None:
        """Name no file: the container ends when it has been asked for nothing."""
        with contextlib.suppress(BrokenPipeError, ValueError):
            cast(IO[bytes], self._child.stdin).close()

    def _text(self) -> bytes:
        """What the container prints of one short file."""
        length = self._output.readline()
        text = self._output.read(int(length)) if length.strip().isdigit() else b""
        if not text:
            raise NotReadable("the engine's storage cannot be read")
        return text

    def _ask(self) -> None:
        """Name the files whose content is needed; in a thread, as the pipe holds few names."""
        given = cast(IO[bytes], self._child.stdin)
        with contextlib.suppress(BrokenPipeError, ValueError), given:
            for number, split in enumerate(self._splits):
                for name, size in parts(split):
                    if size:
                        given.write(f"./{number}/".encode() + name + b"\0")

    def _archive(self, layer: Layer, split: bytes) -> Iterator[bytes]:
        hasher = hashlib.sha256()
        for piece in gathered(self._pieces(split)):
            hasher.update(piece)
            yield piece
        if hasher.hexdigest() != _hex(layer.digest):
            raise NotReadable(f"the engine's storage holds something else than the layer {layer.digest}")

    def _pieces(self, split: bytes) -> Iterator[bytes]:
        for data, size in parts(split):
            if not size:
                yield data
            left = size
            while left:
                piece = self._output.read(min(left, PIECE_BYTES))
                if not piece:
                    raise NotReadable("a file of a layer cannot be read")
                left -= len(piece)
                yield piece


def parts(split: bytes) -> Iterator[tuple[bytes, int]]:
    """What an archive is made of: bytes of it with a 0, or the name of a file with the size of its content.

    `split` is what the engine keeps: lines of JSON, packed. Format: github.com/vbatts/tar-split, tar/storage.
    """
    try:
        for line in gzip.GzipFile(fileobj=io.BytesIO(split)):
            entry = json.loads(line)
            if entry["type"] == 2:
                yield base64.b64decode(entry["payload"] or ""), 0
            elif entry.get("size"):
                raw = entry.get("name_raw")
                yield base64.b64decode(raw) if raw else entry["name"].encode(), int(entry["size"])
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise NotReadable(f"the engine keeps its layers in another form: {error}") from error


def gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of PIECE_BYTES, the last one shorter."""
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        while len(buffer) >= PIECE_BYTES:
            yield bytes(buffer[:PIECE_BYTES])
            del buffer[:PIECE_BYTES]
    if buffer:
        yield bytes(buffer)


class _Pipe(io.RawIOBase):
    """A named pipe, at whose end somebody writes as long as `child` lives."""

    def __init__(self, path: Path, child: "subprocess.Popen[bytes]") -> None:
        self._child = child
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(self._descriptor, fcntl.F_SETPIPE_SZ, PIECE_BYTES)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not select.select([self._descriptor], [], [], POLL_SECONDS)[0]:
            if self._child.poll() is not None:  # it ended without opening the pipe
                return 0
        return os.readv(self._descriptor, [buffer])

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


@contextlib.contextmanager
def opened(store: Path, images: Sequence[str], layers: Sequence[Layer], *, folder: Path) -> Iterator[LayerReader]:
    """Read the configurations of the images with these ids, and these layers, by a pipe below `folder`.

    Raises NotReadable.
    """
    ids = list(dict.fromkeys(images))
    name = f"edgebuild-push-{uuid.uuid4().hex[:12]}"
    with tempfile.TemporaryDirectory(prefix=READING, dir=folder) as own:
        pipe = Path(own, "pipe")
        os.mkfifo(pipe, 0o600)
        argv = read_argv(ids[0], name, store, ids, layers, output=Path(own))
        try:
            with (
                process(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child,
                io.BufferedReader(_Pipe(pipe, child), PIECE_BYTES) as output,
            ):
                reader = LayerReader(child, output, ids, layers)
                yield reader
                reader.close()
        except BaseException:
            run(["docker", "rm", "--force", name], check=False)
            raise
