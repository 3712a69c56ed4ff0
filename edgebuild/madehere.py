"""The images that builds of this repository have made: by it is told what they leave in the engine."""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edgebuild.records import Records


def _made(root: Path) -> Records:
    return Records(root / "build/.cache/images")


def note_made(root: Path, environment: str, images: Iterable[str]) -> None:
    """Note that builds of the repository at `root` made the images with these ids, for this environment."""
    for image in images:
        _made(root).add("made", image, environment=environment, when=time.time())


def made_here(root: Path, image: str) -> Mapping[str, Any]:
    """`environment` and `when` of an image that was made here; nothing of others'."""
    return _made(root).get("made", image) or {}
