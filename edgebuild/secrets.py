"""Secrets are references; they are resolved when used, and never shown. Pure but for reading the named file."""

import contextlib
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO, cast

from ahocorasick_rs import AhoCorasick

from edgebuild.errors import InputError
from edgebuild.forms import Form, forms_to_hide

HIDDEN = "***"


class Hidden:
    """Values by key that must not be shown, with all their forms, and the variables that hold them."""

    def __init__(self) -> None:
        self.variables: set[str] = set()
        self.clear()

    def clear(self) -> None:
        self.variables.clear()
        self.values: dict[str, str] = {}
        self._forms: list[Form] = []
        self._anchors = AhoCorasick([])
        self._always: set[int] = set()

    def add(self, key: str, value: str) -> None:
        if self.values.get(key) != value:
            self.values[key] = value
            self._forms += forms_to_hide(value)
            # All anchors are looked for in one pass: a key of fifty lines has hundreds.
            self._anchors = AhoCorasick([form.anchor or "\0" for form in self._forms])
            self._always = {number for number, form in enumerate(self._forms) if not form.anchor}

    def redact(self, text: str) -> str:
        """The text with `***` for every value, in whichever form; bytes that are no text are written as escapes."""
        text = text.encode(errors="backslashreplace").decode()
        near = {number for number, _, _ in self._anchors.find_matches_as_indexes(text, overlapping=True)}
        near |= self._always
        spans = sorted(span for number in near for span in self._forms[number].spans(text))
        if not spans:
            return text
        parts, end = [], 0
        for start, stop in spans:
            if start >= end:
                parts += [text[end:start], HIDDEN]
            end = max(end, stop)
        return "".join([*parts, text[end:]])


# One for the whole process, filled by resolve(): what prints something cannot know which secrets were used before.
hidden = Hidden()


def redact(text: str) -> str:
    """The text without any secret that this process has resolved."""
    return hidden.redact(text)


def resolve(reference: str, *, environ: Mapping[str, str], root: Path, key: str) -> str:
    """The value behind `env:NAME` or `file:PATH` (relative to `root`). `key` names it in errors; no value does.

    From here on the value is hidden in all that this process prints, and the variable withheld from its children.
    """
    kind, _, name = reference.partition(":")
    if kind == "env":
        value = environ.get(name, "")
        if not value:
            state = "is empty" if name in environ else "is not set"
            raise InputError(f"{key}: the environment variable {name} {state}", hint=f"export {name}=[your value]")
        if not _is_text(value):
            raise InputError(f"{key}: the environment variable {name} is not UTF-8 text")
        hidden.variables.add(name)
    elif kind == "file":
        try:
            value = (root / name).read_text(encoding="utf-8").rstrip("\n")
        except UnicodeDecodeError as error:
            raise InputError(f"{key}: {name} is not UTF-8 text") from error
        except OSError as error:
            raise InputError(f"{key}: {name} cannot be read: {error.strerror}") from error
        if not value:
            raise InputError(f"{key}: {name} is empty")
    else:
        raise InputError(f"{key}: expected a reference, env:NAME or file:PATH")
    hidden.add(key, value)
    return value


def resolve_if_there(references: Mapping[str, str], *, environ: Mapping[str, str], root: Path) -> None:
    """Those by key that can be resolved: not needed now, but to be hidden and looked for."""
    for key, reference in references.items():
        with contextlib.suppress(InputError):
            resolve(reference, environ=environ, root=root, key=key)


def _is_text(value: str) -> bool:
    """Whether all of it was UTF-8; Python keeps other bytes of a variable as surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


class Guarded:
    """A text stream that shows no secret. It writes whole lines: none is cut in two; flush() writes the rest."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._rest = stream, ""
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        with self._lock:
            lines, end, rest = (self._rest + text).rpartition("\n")
            self._rest = rest
            if end:
                self._stream.write(redact(lines + end))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with self._lock:
            rest, self._rest = self._rest, ""
            if rest:
                self._stream.write(redact(rest))
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def guarded(stream: TextIO) -> TextIO:
    """The stream, guarded once."""
    return stream if isinstance(stream, Guarded) else cast(TextIO, Guarded(stream))
