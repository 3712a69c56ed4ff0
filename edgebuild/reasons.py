"""Why an artifact is built: the difference of two key documents, in words. Pure."""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from edgebuild.keys import Document

SHOWN = 72  # characters of an instruction
INSTALL = re.compile(r"\b(apt-get|apt|zypper|dnf|yum)\b[^&|;]*\b(install|in)\b")
WORD = re.compile(r"[a-z0-9][a-z0-9+._:~-]*")
PARTS = {"images": "image", "secrets": "secret", "settings": "setting"}

Lookup = Callable[[str], Document | None]


def difference(old: Document, new: Document, lookup: Lookup, *, names: Mapping[str, str] | None = None) -> list[str]:
    """What changed between the documents of an artifact, most basic first; empty when nothing did.

    `lookup` gives the document of a stage's key; `names` are references to what they are called.
    """
    if old.get("format") != new.get("format"):
        return ["edgebuild itself has changed"]
    return list(dict.fromkeys(_compare(old, new, "", lookup, names or {})))


def changes(old: Document, new: Document, lookup: Lookup, name: str = "") -> Iterator[str]:
    """The changed instructions in full, stage by stage, as a unified difference."""
    for stage, key in new.get("stages", {}).items():
        then, now = lookup(old.get("stages", {}).get(stage, "")), lookup(key)
        if now is not None and then != now:
            yield from changes(then or {}, now, lookup, stage)
    before, after = (
        [line for text in each.get("instructions", []) for line in text.splitlines()] for each in (old, new)
    )
    found = list(difflib.unified_diff(before, after, lineterm="", n=1))[2:]
    if found:
        yield from ("", f"  stage {name}", *(f"    {line}" for line in found))


def _compare(old: Document, new: Document, stage: str, lookup: Lookup, names: Mapping[str, str]) -> Iterator[str]:
    where = f"{stage}: " if stage else ""
    yield from _stages(old, new, lookup, names)
    if old.get("boot tree") != new.get("boot tree"):
        yield "the boot tree is another one"
    yield from _images(old.get("images", {}), new.get("images", {}), names)
    if old.get("instructions") != new.get("instructions"):
        for text in _instructions(old.get("instructions", []), new.get("instructions", [])):
            yield where + text
    for text in ("user-data", "boot menu"):
        if old.get(text) != new.get(text):
            yield f"{text} changed: {_changed_lines(old.get(text, []), new.get(text, []))}"
    yield from _mapping(old.get("files", {}), new.get("files", {}), "")
    yield from _mapping(old.get("secrets", {}), new.get("secrets", {}), "secret ")
    yield from _settings(old.get("settings", {}), new.get("settings", {}))


def _stages(old: Document, new: Document, lookup: Lookup, names: Mapping[str, str]) -> Iterator[str]:
    """Down to the stages whose own text or files changed."""
    before, after = old.get("stages", {}), new.get("stages", {})
    for name in after:
        if before.get(name) == after[name]:
            continue
        if name not in before:
            yield f"stage {name} added"
            continue
        then, now = lookup(before[name]), lookup(after[name])
        if then is None or now is None:
            yield f"{name}: what it was made from is not recorded"
        else:
            yield from _compare(then, now, name, lookup, names)
    yield from (f"stage {name} removed" for name in before if name not in after)


def _images(old: Mapping[str, str], new: Mapping[str, str], names: Mapping[str, str]) -> Iterator[str]:
    gone = [image for image in old if image not in new]
    for image, digest in new.items():
        called = f"{names[image]} image" if image in names else f"image {image}"
        if image in old and old[image] != digest:
            yield f"{called}: digest moved from {_short(old[image])} to {_short(digest)}"
        elif image not in old:
            other = f", was {gone.pop(0)}" if gone else ""
            yield f"{called} is now {image}{other}"
    yield from (f"image {image} is not used any more" for image in gone)


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12] or "unknown"


def _instructions(old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    """Packages by name where only they differ; otherwise the first line of each instruction."""
    for tag, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        before, after = old[a:b], new[c:d]
        packages = list(_packages(before, after))
        if packages:
            yield from packages
            continue
        words = {"insert": "added", "delete": "removed", "replace": "changed"}[tag]
        for text in after or before:
            yield f"`{_first_line(text)}` {words}"


def _packages(old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    """Names that a changed installation has more or less; nothing when anything else changed as well."""
    if not all(INSTALL.search(text.replace("\\\n", " ")) for text in [*old, *new]):
        return
    before, after = ([word for text in texts for word in text.split() if word != "\\"] for texts in (old, new))
    added, removed = [each for each in after if each not in before], [each for each in before if each not in after]
    if not old or not new:  # a whole installation
        added, removed = (list(_installed(texts)) for texts in (new, old))
    if not all(WORD.fullmatch(each) for each in [*added, *removed]):
        return
    yield from (f"package {each} added" for each in added)
    yield from (f"package {each} removed" for each in removed)


def _installed(texts: Sequence[str]) -> Iterator[str]:
    for text in texts:
        found = INSTALL.search(text.replace("\\\n", " "))
        rest = text.replace("\\\n", " ")[found.end() :] if found else ""
        words = re.split(r"[&|;]", rest)[0].split()
        yield from (word for word in words if WORD.fullmatch(word))


def _first_line(text: str) -> str:
    line = next((each for each in text.splitlines()[1:] if each.startswith("# ")), "") if "<<" in text else ""
    shown = line.removeprefix("# ") or " ".join(text.split())
    return shown if len(shown) <= SHOWN else shown[: SHOWN - 3] + "..."


def _changed_lines(old: Sequence[str], new: Sequence[str]) -> str:
    """`lines 3–4`, `line 7 added`: numbers of the new text, or of the old one where lines are gone."""
    found = []
    for tag, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "replace":
            found.append(_span(c, d))
        elif tag == "insert":
            found.append(f"{_span(c, d)} added")
        elif tag == "delete":
            found.append(f"{_span(a, b)} removed")
    return ", ".join(found)


def _span(first: int, end: int) -> str:
    return f"line {end}" if end - first == 1 else f"lines {first + 1}–{end}"


def _mapping(old: Mapping[str, Any], new: Mapping[str, Any], what: str) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            word = "changed" if name in old and name in new else "added" if name in new else "removed"
            yield f"{what}{name} {word}"


def _date(seconds: Any) -> str:
    return datetime.fromtimestamp(int(seconds or 0), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        then, now = old.get(name), new.get(name)
        if then == now:
            continue
        if name == "date":
            yield f"the commit that dates it: {_date(now)}, was {_date(then)}"
        elif isinstance(now, (str, int)) and isinstance(then, (str, int)) and len(f"{then}{now}") <= SHOWN:
            yield f"{name}: {now}, was {then}"
        else:
            yield f"{name} changed"
