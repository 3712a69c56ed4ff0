"""A folder in the OCI image layout: images by digest, named as their registries name them, and checksums over all."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgebuild import sums
from edgebuild.errors import InputError, VerificationError
from edgebuild.imagetree import INDEX, Descriptor, ImageTree, Manifest, image_tree, parse, part
from edgebuild.values import REFERENCE

NAME = "org.opencontainers.image.ref.name"
PLATFORMS = "io.edgebuild.platforms"
MARK = {"imageLayoutVersion": "1.0.0"}
WHEELS = "wheels"
PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Entry:
    """An image of the folder: `name` is its upstream reference, `platforms` are those that are here."""

    name: str
    root: Descriptor
    platforms: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "mediaType": self.root.media_type,
            "digest": self.root.digest,
            "size": self.root.size,
            "annotations": {NAME: self.name, PLATFORMS: ",".join(self.platforms)},
        }


@dataclass(frozen=True)
class Layout:
    """The folder; what is in it is read when it is asked for."""

    folder: Path

    def begin(self) -> None:
        """Make the folder, or go on with one that is there. Raises InputError for a folder of something else."""
        mark = self.folder / "oci-layout"
        if self.folder.exists() and not mark.exists() and any(self.folder.iterdir()):
            raise InputError(f"{self.folder}: is neither empty nor a mirror", hint="name a new folder")
        (self.folder / "blobs/sha256").mkdir(parents=True, exist_ok=True)
        if not mark.exists():
            _write(mark, json.dumps(MARK).encode())
            _write(self.folder / "index.json", _index([]))

    def entries(self) -> list[Entry]:
        """The images of index.json. Raises InputError for no layout, VerificationError for a damaged one."""
        hint = "./inv mirror.export --to FOLDER makes one"
        if not (self.folder / "oci-layout").is_file():
            raise InputError(f"{self.folder}: is no mirror: it has no file oci-layout", hint=hint)
        try:
            data = (self.folder / "index.json").read_bytes()
        except FileNotFoundError as error:
            raise VerificationError(f"{self.folder}/index.json: is missing", hint=hint) from error
        try:
            listed = parse(data, "index.json")["manifests"]
            return [_entry(each) for each in listed]
        except (VerificationError, KeyError, TypeError, AttributeError) as error:
            raise VerificationError(
                f"{self.folder}/index.json: is damaged or cut off",
                hint="copy the mirror again, or export into the same folder: what is whole is not fetched again",
            ) from error

    def path(self, digest: str) -> Path:
        return self.folder / "blobs/sha256" / digest.removeprefix("sha256:")

    def has(self, blob: Descriptor) -> bool:
        """Whether the blob is here and whole; every byte of it is read."""
        path = self.path(blob.digest)
        return path.is_file() and path.stat().st_size == blob.size and f"sha256:{sums.digest(path)}" == blob.digest

    def flaw(self, blob: Descriptor) -> str:
        """What is wrong with a blob, in words; empty when it is whole."""
        path = self.path(blob.digest)
        if not path.is_file():
            return "is missing"
        if (found := path.stat().st_size) != blob.size:
            return f"has {found} of its {blob.size} bytes"
        return "" if self.has(blob) else "was changed: its SHA-256 is another"

    def read(self, root: Descriptor, name: str) -> Callable[[str], Manifest]:
        """Gives manifests by digest, checked. `root` is what the index says of the image `name`."""

        def manifest(digest: str) -> Manifest:
            try:
                data = self.path(digest).read_bytes()
            except FileNotFoundError as error:
                raise VerificationError(f"{name}: manifest {digest} is missing") from error
            if sums.digest_of(data) != digest:
                raise VerificationError(f"{name}: manifest {digest} was changed: its SHA-256 is another")
            kind = root.media_type if digest == root.digest else str(parse(data, name).get("mediaType", ""))
            return Manifest(digest, kind, data)

        return manifest

    def tree(self, entry: Entry) -> ImageTree:
        """The entry's image. Raises VerificationError; its blobs are not looked at."""
        return image_tree(self.read(entry.root, entry.name), entry.root.digest, entry.platforms, entry.name)

    def pieces(self, digest: str, offset: int) -> Iterator[bytes]:
        """A blob from an offset on."""
        with self.path(digest).open("rb") as file:
            file.seek(offset)
            while piece := file.read(PIECE_BYTES):
                yield piece

    def keep(self, manifest: Manifest) -> None:
        """Store a manifest as it is."""
        if not self.has(manifest.descriptor):
            _write(self.path(manifest.digest), manifest.data)

    def fetch(self, blob: Descriptor, read: Callable[[int], Iterator[bytes]]) -> int:
        """Store a blob that `read` gives from an offset on; returns the bytes that were read.

        What an earlier run has left of it is continued; it gets its name when it is whole, by its digest.
        """
        partial = self.folder / "blobs/sha256" / f".{blob.digest.removeprefix('sha256:')}.partial"
        hasher, done = hashlib.sha256(), 0
        with partial.open("a+b") as file:
            file.seek(0)
            while piece := file.read(PIECE_BYTES):
                hasher.update(piece)
                done += len(piece)
            if done > blob.size:
                file.truncate(0)
                hasher, done = hashlib.sha256(), 0
            start = done
            for piece in read(done) if done < blob.size else ():
                file.write(piece)
                hasher.update(piece)
                done += len(piece)
            file.flush()
            os.fsync(file.fileno())
        if done != blob.size or f"sha256:{hasher.hexdigest()}" != blob.digest:
            partial.unlink()
            if start:  # what an earlier run had left was damaged: all of it anew
                return self.fetch(blob, read)
            raise VerificationError(f"blob {blob.digest}: other bytes came than its digest names")
        partial.replace(self.path(blob.digest))
        return done - start

    def add(self, entries: Sequence[Entry]) -> None:
        """List these images, beside those that are there; those of an earlier export under the same name go.

        Environments that lock one name to different digests have an image each.
        """
        names = {each.name for each in entries}
        try:
            others = [each for each in self.entries() if each.name not in names]
        except VerificationError:  # what was damaged is written anew from what is exported now
            others = []
        listed = sorted([*others, *entries], key=lambda each: (each.name, each.root.digest))
        _write(self.folder / "index.json", _index(listed))

    def sum_up(self) -> None:
        """SHA256SUMS over everything; what is named by its hash was checked when it came."""
        for left in (self.folder / "blobs/sha256").glob(".*.partial"):
            left.unlink()
        blobs = (self.folder / "blobs/sha256").iterdir()
        sums.write(self.folder, {f"blobs/sha256/{path.name}": path.name for path in blobs})

    def problems(self) -> list[str]:
        """All that is missing or changed, a line each: every file by checksum, every image by its parts."""
        known = {
            path.relative_to(self.folder).as_posix(): sums.digest(path)
            for path in self.folder.rglob("*")
            if path.is_file() and path.name != sums.NAME
        }
        found = list(sums.problems(self.folder, known=known))
        for entry in self.entries():
            try:
                tree = self.tree(entry)
            except VerificationError as error:
                found.append(error.message)
                continue
            found += [
                f"{entry.name}: blob {blob.digest} {self.flaw(blob)}"
                for blob in tree.blobs
                if known.get(f"blobs/sha256/{blob.digest[7:]}") != blob.digest[7:]
            ]
        return found


def _entry(value: Mapping[str, Any]) -> Entry:
    noted = value["annotations"]
    name = str(noted[NAME])
    if not REFERENCE.fullmatch(name) or ".." in name:  # it becomes a path in the registry that it is pushed to
        raise VerificationError(f"{name[:100]}: is no image reference")
    return Entry(name, part(value, "index.json"), tuple(str(noted[PLATFORMS]).split(",")))


def _index(entries: Sequence[Entry]) -> bytes:
    content = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [each.to_json() for each in entries]}
    return json.dumps(content, indent=1).encode() + b"\n"


def _write(path: Path, data: bytes) -> None:
    """Write a small file under another name first: whatever happens, it is whole or not there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
