"""Content keys: the hash of a document of all that makes an artifact. Pure.

The document of an image names the key of its stage, whose document holds its own instructions and files and names the
keys of the stages below: so what images share is written, hashed and compared once.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgebuild.stages import Stage, chain

FORMAT = 1  # a higher number builds everything once more
MISSING = "missing"

Document = dict[str, Any]


@dataclass(frozen=True)
class Sources:
    """What the world has of a build's inputs, by content.

    `files`: name or glob of the build context to its paths with their content; `images`: reference to digest;
    `secrets`: id to keyed hash.
    """

    files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SiteFiles:
    """What makes an ISO one site's. Texts are lists of keyed hashes, a line each; `files` are path to content."""

    user_data: Sequence[str]
    menu: Sequence[str]
    files: Mapping[str, str]


def key_of(document: Document) -> str:
    """The document's canonical JSON, hashed: `sha256:...`."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def stage_documents(stages: Mapping[str, Stage], names: Sequence[str], sources: Sources) -> dict[str, Document]:
    """The documents of these stages and of all that they stand on, by name; each is made once."""
    documents: dict[str, Document] = {}
    keys: dict[str, str] = {}
    for name in chain(stages, *names):
        stage = stages[name]
        documents[name] = {
            "instructions": list(stage.instructions),
            "stages": {parent: keys[parent] for parent in stage.parents},
            "images": {image: sources.images.get(image, "") for image in stage.images},
            "files": {path: content for each in stage.files for path, content in sources.files.get(each, {}).items()},
            "secrets": {each: sources.secrets.get(each, "") for each in stage.secrets},
        }
        keys[name] = key_of(documents[name])
    return documents


def image_document(stage: str, stage_key: str, settings: Mapping[str, Any]) -> Document:
    """An image: its stage, and the settings of its target in the bake file."""
    return {"format": FORMAT, "stages": {stage: stage_key}, "settings": dict(settings)}


def iso_document(boot_tree: str, settings: Mapping[str, Any], site: SiteFiles) -> Document:
    """An ISO: the digest of its boot tree, how it is put together, and the site's files."""
    return {
        "format": FORMAT,
        "boot tree": boot_tree,
        "settings": dict(settings),
        "user-data": list(site.user_data),
        "boot menu": list(site.menu),
        "files": dict(site.files),
    }


def lines(text: str, keyed: Callable[[bytes], str]) -> list[str]:
    """A text as keyed hashes of its lines: they tell which lines changed, and nothing of what stands there."""
    return [keyed(line.encode()) for line in text.splitlines()]
