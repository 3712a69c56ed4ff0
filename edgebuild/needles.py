"""Looking for secrets in bytes: which one stands where, and in which form. Never shows a value. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO

from edgebuild.forms import forms_to_find

CHUNK = 8 << 20
OVERLAP = 1 << 16  # longer than any form of a secret


@dataclass(frozen=True, order=True)
class Find:
    """A secret that stands where it must not: `where` says the place, `key` and `form` what stands there."""

    where: str
    key: str
    form: str


@dataclass(frozen=True)
class Hit:
    """One place in some bytes; offsets in bytes."""

    offset: int
    end: int
    key: str
    form: str


class Needles:
    """The secrets to look for, by key. `too_short` names those that cannot be: they stand everywhere by chance."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        forms = {key: forms_to_find(value) for key, value in secrets.items()}
        self.too_short = tuple(key for key, found in forms.items() if not found)
        self.keys = tuple(key for key, found in forms.items() if found)
        self._forms = [(key, form, form.anchor.encode()) for key, found in forms.items() for form in found]

    @property
    def patterns(self) -> str:
        """For `grep -E -f`, a line each."""
        return "".join(f"{pattern}\n" for pattern in sorted({form.pattern for _, form, _ in self._forms}))

    def search(self, data: bytes) -> Iterator[Hit]:
        """All hits in these bytes."""
        for key, form, anchor in self._forms:
            if anchor in data:
                for match in form.bytes_regex.finditer(data):
                    name = form.name(match[0].decode(errors="replace"))
                    yield Hit(match.start(), match.end(), key, name)

    def search_file(self, file: IO[bytes], length: int | None = None) -> Iterator[Hit]:
        """All hits from where the file stands, in `length` bytes or to its end; offsets count from there."""
        position, data = 0, b""
        while True:
            left = CHUNK if length is None else min(CHUNK, length - position - len(data))
            piece = file.read(left) if left else b""
            data += piece
            certain = len(data) if not piece else max(len(data) - OVERLAP, 0)
            for hit in self.search(data):
                if hit.offset < certain:
                    yield Hit(position + hit.offset, position + hit.end, hit.key, hit.form)
            if not piece:
                return
            position, data = position + certain, data[certain:]


def places(hits: Iterator[Hit], where: str, data: bytes | None = None) -> Iterator[Find]:
    """A find for each secret and form: at its first byte, or its line when `data` is text."""
    seen = set()
    for hit in sorted(hits, key=lambda each: each.offset):
        if (hit.key, hit.form) not in seen:
            seen.add((hit.key, hit.form))
            if data is not None and b"\0" not in data:
                line = data.count(b"\n", 0, hit.offset) + 1
                yield Find(f"{where}, line {line}", hit.key, hit.form)
            else:
                yield Find(f"{where}, byte {hit.offset}", hit.key, hit.form)
