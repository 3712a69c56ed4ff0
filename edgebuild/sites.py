"""The sites of a fleet: one row of a CSV file, or one YAML file, for each. Pure.

Files are read as bytes by who calls; everything wrong is told with file and line, and no value is repeated.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgebuild.cloudconfig import UniqueKeys
from edgebuild.yamltext import YamlProblem, read_yaml

NAME = "name"
SITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
VALUE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
RESERVED = ("index.json",)  # stands beside the sites' folders


@dataclass(frozen=True)
class Site:
    """One site: `values` are what a template sees as `site`, `where` is its file, with the line of a row."""

    name: str
    values: Mapping[str, Any]
    where: str


@dataclass(frozen=True)
class Flaw:
    """Something wrong at one place."""

    where: str
    problem: str

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}"


def decoded(data: bytes, source: str) -> str | Flaw:
    """The text of a file in UTF-8, with or without the mark that spreadsheets put in front."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return Flaw(source, "UTF-16 text; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return Flaw(f"{source}:{line}", "not UTF-8 text")


def rows(text: str, source: str) -> Iterator[Site | Flaw]:
    """The sites of a CSV text: a head with the names of the values, then a row for each."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    head: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            # What follows cannot be told apart from what is wrong here.
            yield Flaw(f"{source}:{line}", f"not CSV: {error}")
            return
        if row is None:
            break
        where = f"{source}:{line}"
        if not any(row):
            continue
        if head is None:
            head = row
            if flaws := list(_head_flaws(head, where)):
                yield from flaws
                return
        elif len(row) != len(head):
            yield Flaw(where, f"{len(row)} columns, and the head has {len(head)}")
        else:
            yield _site(dict(zip(head, row, strict=True)), where)
    if head is None:
        yield Flaw(source, "empty; the first line names the columns, such as: name,address")


def _head_flaws(head: Sequence[str], where: str) -> Iterator[Flaw]:
    if len(head) == 1 and re.search(r"[;\t]", head[0]):
        yield Flaw(where, "the columns are not separated by commas")
        return
    if NAME not in head:
        yield Flaw(where, "no column `name`")
    for number, name in enumerate(head, 1):
        if name in head[: number - 1]:
            yield Flaw(where, f"column {number}: {name!a} stands there twice")
        elif problem := _value_name_problem(name):
            yield Flaw(where, f"column {number}: {problem}")


def _value_name_problem(name: Any) -> str:
    if not isinstance(name, str) or not VALUE_NAME.fullmatch(name):
        return f"{name!a}: a name of a value has letters, digits and _, and no digit in front"
    if hasattr(dict, name):
        return f"{name!a} means something else in a template; choose another name"
    return ""


def document(text: str, source: str, stem: str) -> Iterator[Site | Flaw]:
    """The site of a YAML text; its name is `name`, else `stem`, that of the file."""
    try:
        values = read_yaml(text, UniqueKeys)
    except YamlProblem as error:
        yield Flaw(f"{source}:{error.line}" if error.line else source, error.problem)
        return
    if values is None:
        yield Flaw(source, "empty; it holds `key: value` lines")
    elif not isinstance(values, dict):
        yield Flaw(source, "expected `key: value` lines")
    elif problems := [problem for name in values if (problem := _value_name_problem(name))]:
        yield from (Flaw(source, problem) for problem in problems)
    elif not isinstance(values.get(NAME, ""), str):
        yield Flaw(source, "name: not a text; put it into quotes")
    else:
        yield _site({NAME: stem, **values}, source)


def _site(values: Mapping[str, Any], where: str) -> Site | Flaw:
    name = values[NAME]
    if not SITE_NAME.fullmatch(name):
        shown = "empty" if not name else f"{name[:70]!a}"
        return Flaw(where, f"name: {shown}; it becomes a file's name: letters, digits, . _ and -, 63 at most")
    if name.lower() in RESERVED:
        return Flaw(where, f"name: {name} is the name of another file there")
    return Site(name, values, where)


class Names:
    """Finds names that stand there twice, also where only their capitals differ."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, str]] = {}

    def flaw(self, site: Site) -> Flaw | None:
        """What is wrong with one more site."""
        name, where = self._known.setdefault(site.name.lower(), (site.name, site.where))
        if where == site.where:
            return None
        other = "" if name == site.name else f" as {name}, and some file systems see no difference"
        return Flaw(site.where, f"name: {site.name} is also in {where}{other}")


class Flaws:
    """All that is wrong, each problem once with the first place and how often it is there."""

    def __init__(self) -> None:
        self._found: dict[str, list[Any]] = {}
        self.count = 0

    def add(self, flaw: Flaw) -> None:
        self.count += 1
        self._found.setdefault(flaw.problem, [flaw.where, 0])[1] += 1

    def lines(self, shown: int) -> list[str]:
        """One line for each problem, `shown` at most."""
        found = [
            f"{where}: {problem}" + (f" (and {count - 1:,} more)" if count > 1 else "")
            for problem, (where, count) in self._found.items()
        ]
        return found[:shown] + ([f"and {len(found) - shown:,} more"] if len(found) > shown else [])
