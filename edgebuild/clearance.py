"""What takes space, and what of it goes: by environment, age and size. Pure: entries in, choice out."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from edgebuild.errors import InputError
from edgebuild.report import age, size, table

UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
BYTES = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
SHOWN = 8  # entries of a kind that are named one by one

Kind = Literal[
    "results", "fleet", "log", "boot log", "image", "superseded image", "base", "packed layer", "build cache"
]
Layers = Mapping[str, int]  # of an image: layer to its bytes


@dataclass(frozen=True)
class Entry:
    """Something that takes space. `name` is a path below the repository, an image's name, or its id.

    Of a file `size_bytes` is what it takes; an image has its `layers` instead, which others may have too. Superseded
    is what a later build has replaced.
    """

    kind: Kind
    name: str
    environment: str
    age_seconds: float
    size_bytes: int = 0
    superseded: bool = False
    layers: Layers = field(default_factory=dict)


def parse_age(text: str) -> float:
    """`7d` in seconds. Raises InputError."""
    found = re.fullmatch(r"([0-9]{1,6})([mhdw])", text.strip())
    if not found:
        raise InputError(f"{text!r} is no age; expected a number and m, h, d or w", hint="such as --older-than 7d")
    return float(found[1]) * UNITS[found[2]]


def parse_size(text: str) -> int:
    """`20GB` in bytes. Raises InputError."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?([kMGT]B)", text.strip(), re.IGNORECASE)
    if not found:
        raise InputError(f"{text!r} is no size; expected a number and kB, MB, GB or TB", hint="such as --keep 20GB")
    return int(float(found[1]) * BYTES[found[2].lower()])


def held(entries: Iterable[Entry], elsewhere: Collection[str] = ()) -> int:
    """Bytes of these entries: a layer that several images have counts once, and not when it is needed `elsewhere`."""
    files, layers = 0, dict[str, int]()
    for entry in entries:
        files += entry.size_bytes
        layers.update(entry.layers)
    return files + sum(bytes_ for layer, bytes_ in layers.items() if layer not in elsewhere)


def freed(chosen: Collection[Entry], entries: Iterable[Entry], elsewhere: Collection[str] = ()) -> int:
    """Bytes that come free when these of the entries go: what they alone hold."""
    kept = {layer for entry in entries if entry not in chosen for layer in entry.layers}
    return held(chosen, {*kept, *elsewhere})


def choose(
    entries: Sequence[Entry],
    *,
    older_than: float | None = None,
    keep: int | None = None,
    elsewhere: Collection[str] = (),
) -> list[Entry]:
    """What goes: all, or what is older (seconds), and the oldest until what stays is not more than `keep` bytes.

    What is superseded goes before what is not.
    """
    if older_than is None and keep is None:
        return list(entries)
    by_age = sorted(entries, key=lambda entry: (not entry.superseded, -entry.age_seconds))
    chosen = [entry for entry in by_age if older_than is not None and entry.age_seconds > older_than]
    if keep is None:
        return chosen
    stay = [entry for entry in by_age if entry not in chosen]
    while stay and held(stay, elsewhere) > keep:
        chosen.append(stay.pop(0))
    return chosen


def shown(chosen: Sequence[Entry], entries: Sequence[Entry], elsewhere: Collection[str] = ()) -> str:
    """What will go, as a table; many entries of a kind are one line."""
    rows = [("environment", "what", "age", "frees")]
    groups: dict[tuple[str, Kind], list[Entry]] = {}
    for entry in chosen:
        groups.setdefault((entry.environment, entry.kind), []).append(entry)
    for (environment, kind), found in groups.items():
        lines = [(f"{kind} {entry.name}", [entry]) for entry in found]
        if len(found) > SHOWN:
            lines = [(f"{len(found)} {_plural(kind)}", found)]
        for what, those in lines:
            oldest = max(entry.age_seconds for entry in those)
            rows.append((environment or "all", what, age(oldest), size(freed(those, entries, elsewhere))))
    return table(rows) + f"together: {size(freed(chosen, entries, elsewhere))}\n"


def _plural(kind: str) -> str:
    return kind if kind.endswith("s") else f"{kind}s"
