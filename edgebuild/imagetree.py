"""What an image consists of: manifests and blobs, for the platforms that are wanted out of an index. Pure."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgebuild.errors import VerificationError
from edgebuild.values import DIGEST

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEXES = (INDEX, "application/vnd.docker.distribution.manifest.list.v2+json")
LEVELS = 4  # of indexes in indexes; nobody builds more than two

Document = dict[str, Any]


@dataclass(frozen=True)
class Descriptor:
    """What a manifest says of a part: `digest` is sha256:hex, `size` in bytes."""

    digest: str
    size: int
    media_type: str = ""


@dataclass(frozen=True)
class Manifest:
    """A manifest or index as it stands, byte for byte."""

    digest: str
    media_type: str
    data: bytes

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.digest, len(self.data), self.media_type)


@dataclass(frozen=True)
class ImageTree:
    """An image: `manifests` in the order in which a registry takes them, its own the last; all their `blobs`, once.

    `whole` is false where an index names manifests that are not here. `images` are the manifests of the platforms.
    """

    manifests: tuple[Manifest, ...]
    blobs: tuple[Descriptor, ...]
    images: tuple[Manifest, ...]
    whole: bool

    @property
    def root(self) -> Manifest:
        return self.manifests[-1]

    @property
    def size(self) -> int:
        return sum(len(each.data) for each in self.manifests) + sum(each.size for each in self.blobs)


def image_tree(read: Callable[[str], Manifest], digest: str, platforms: Sequence[str], name: str) -> ImageTree:
    """The image of this digest for `platforms` such as linux/amd64; `read` gives a manifest by its digest.

    Raises VerificationError for what is no image, or has none of these platforms; and whatever `read` raises.
    """
    return _tree(read, Descriptor(digest, 0), platforms, name, LEVELS)


def _tree(
    read: Callable[[str], Manifest], named: Descriptor, platforms: Sequence[str], name: str, levels: int
) -> ImageTree:
    found = read(named.digest)
    if named.media_type:
        found = replace(found, media_type=named.media_type)
    content = parse(found.data, name)
    if found.media_type not in INDEXES and "manifests" not in content:
        blobs = [part(each, name) for each in (content.get("config"), *_listed(content, "layers", name))]
        return ImageTree((found,), tuple(dict.fromkeys(blobs)), (found,), whole=True)
    if not levels:
        raise VerificationError(f"{name}: indexes in indexes, too many levels of them")
    children = _listed(content, "manifests", name)
    wanted = [each for each in children if is_for(each, platforms)]
    if missing := [platform for platform in platforms if not any(is_for(each, [platform]) for each in children)]:
        raise VerificationError(f"{name}: there is none for {', '.join(missing)}")
    trees = [_tree(read, part(each, name), platforms, name, levels - 1) for each in wanted]
    return ImageTree(
        (*dict.fromkeys(each for tree in trees for each in tree.manifests), found),
        tuple(dict.fromkeys(each for tree in trees for each in tree.blobs)),
        tuple(dict.fromkeys(each for tree in trees for each in tree.images)),
        whole=len(wanted) == len(children) and all(tree.whole for tree in trees),
    )


def is_for(descriptor: Mapping[str, Any], platforms: Sequence[str]) -> bool:
    """Whether an index has this manifest for one of these platforms; one without platform may be an index."""
    platform = descriptor.get("platform")
    if not isinstance(platform, dict):
        return descriptor.get("mediaType") in INDEXES
    return f"{platform.get('os')}/{platform.get('architecture')}" in platforms


def parse(data: bytes, name: str) -> Document:
    """A manifest's JSON. Raises VerificationError."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise VerificationError(f"{name}: its manifest is no JSON") from error
    if not isinstance(found, dict):
        raise VerificationError(f"{name}: its manifest is none")
    return found


def part(descriptor: object, name: str) -> Descriptor:
    """A descriptor as its author wrote it, checked. Raises VerificationError."""
    if isinstance(descriptor, dict):
        digest, size, kind = descriptor.get("digest"), descriptor.get("size"), descriptor.get("mediaType", "")
        if isinstance(digest, str) and DIGEST.fullmatch(digest) and isinstance(size, int) and size >= 0:
            return Descriptor(digest, size, str(kind))
    raise VerificationError(f"{name}: its manifest names a part without sha256 digest and size")


def _listed(content: Document, key: str, name: str) -> list[Document]:
    found = content.get(key)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise VerificationError(f"{name}: its manifest has no {key}")
    return found
