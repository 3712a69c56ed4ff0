"""What the engine holds of an environment: its images, their age, and what they share. On Docker's own SDK."""

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from edgebuild.registry import engine_errors, find_image

# Entries of an image's history that make no layer.
METADATA = re.compile(
    r"(/bin/sh -c #\(nop\)\s+)?"
    r"(ARG|CMD|ENTRYPOINT|ENV|EXPOSE|HEALTHCHECK|LABEL|MAINTAINER|ONBUILD|SHELL|STOPSIGNAL|USER|VOLUME)\b"
)


@dataclass(frozen=True)
class LocalImage:
    """An image in the engine. `shared_bytes` is what it has in common with the others listed."""

    reference: str
    id: str
    age_seconds: float
    size_bytes: int
    shared_bytes: int


def local_images(client: Any, references: Sequence[str]) -> list[LocalImage]:
    """Those of the references that the engine has."""
    images = {reference: image for reference in references if (image := find_image(client, reference))}
    with engine_errors():
        layers = {reference: _layers(image, client.api.history(image["Id"])) for reference, image in images.items()}
    shared, now = shared_bytes(layers), time.time()
    return [
        LocalImage(name, image["Id"][7:19], now - tagged(image), image["Size"], shared[name])
        for name, image in images.items()
    ]


def _layers(image: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """Layer digests with their sizes, lowest first. The engine tells sizes in the history only, digests not there."""
    digests = image["RootFS"].get("Layers") or []
    lowest_first = list(reversed(history))
    made = [int(entry["Size"]) for entry in lowest_first if not METADATA.match(entry["CreatedBy"] or "")]
    if len(made) != len(digests):  # another builder's words: then only what has a size is surely a layer
        made = [int(entry["Size"]) for entry in lowest_first if entry["Size"]]
    return list(zip(digests, made, strict=False))


def shared_bytes(layers: Mapping[str, Sequence[tuple[str, int]]]) -> dict[str, int]:
    """For each image the bytes of its layers that another one of them has too."""
    users: dict[str, int] = {}
    for found in layers.values():
        for digest in {digest for digest, _ in found}:
            users[digest] = users.get(digest, 0) + 1
    return {name: sum(size for digest, size in found if users[digest] > 1) for name, found in layers.items()}


def stacks(digests: Sequence[str]) -> list[str]:
    """What the engine knows layers by: for each, lowest first, the digest of the stack up to it (chain id)."""
    found: list[str] = []
    for digest in digests:
        below = f"{found[-1]} {digest}" if found else ""
        found.append("sha256:" + hashlib.sha256(below.encode()).hexdigest() if below else digest)
    return found


def layer_sizes(image: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The bytes of an image's layers, by what the engine knows them by."""
    sizes = _layers(image, history)
    return dict(zip(stacks([digest for digest, _ in sizes]), [size for _, size in sizes], strict=True))


def tagged(image: Mapping[str, Any]) -> float:
    """Seconds since 1970 when the engine gave the image its last tag: reproducible images carry no date of theirs."""
    text = (image.get("Metadata") or {}).get("LastTagTime") or image["Created"]
    return datetime.fromisoformat(re.sub(r"(\.\d{1,6})\d*", r"\1", text).replace("Z", "+00:00")).timestamp()
