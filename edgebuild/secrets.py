"""Secrets are references; they are resolved when used, and never shown. Pure but for reading the named file."""

import base64
import json
import urllib.parse
from collections.abc import Iterable, Mapping
from pathlib import Path

from edgebuild.errors import InputError


def resolve(reference: str, *, environ: Mapping[str, str], root: Path, key: str) -> str:
    """The value behind `env:NAME` or `file:PATH` (relative to `root`). `key` names it in errors; no value does."""
    kind, _, name = reference.partition(":")
    if kind == "env":
        value = environ.get(name, "")
        if not value:
            state = "is empty" if name in environ else "is not set"
            raise InputError(f"{key}: the environment variable {name} {state}", hint=f"export {name}=[your value]")
        return value
    if kind == "file":
        try:
            value = (root / name).read_text(encoding="utf-8").rstrip("\n")
        except UnicodeDecodeError as error:
            raise InputError(f"{key}: {name} is not UTF-8 text") from error
        except OSError as error:
            raise InputError(f"{key}: {name} cannot be read: {error.strerror}") from error
        if not value:
            raise InputError(f"{key}: {name} is empty")
        return value
    raise InputError(f"{key}: expected a reference, env:NAME or file:PATH")


def redact(text: str, values: Iterable[str]) -> str:
    """The text without these values, also in the forms in which tools repeat them."""
    forms: set[str] = set()
    for value in values:
        if value:
            raw = value.encode()
            forms |= {value, json.dumps(value)[1:-1], urllib.parse.quote(value, safe="")}
            forms |= {base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "***")
    return text
