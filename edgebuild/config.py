"""From layers to an Environment: resolve expressions, validate; all errors at once."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from pydantic import ValidationError

from edgebuild.errors import InputError
from edgebuild.expressions import Sandbox
from edgebuild.layers import (
    Key,
    Layer,
    leaves,
    merge,
    nearest,
    parse_layer,
    settings_layer,
    shortened,
    variables_layer,
)
from edgebuild.model import Environment

MAX_CHAIN = 20
DRIVERS = ("docker", "remote", "kubernetes")
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"


class _View:
    """A mapping as expressions see it: attribute access gives the value with its own expressions resolved."""

    def __init__(self, resolver: "_Resolver", key: Key) -> None:
        self._resolver, self._key = resolver, key

    def __getitem__(self, name: str) -> Any:
        return self._resolver.at((*self._key, name))


class _Resolver:
    """Resolves the expressions in a merged configuration; `problems` holds (key, problem)."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.problems: list[tuple[Key, str]] = []
        self._open: list[Key] = []
        self._known: dict[tuple[Key, str], str] = {}
        self._sandbox = Sandbox(statements=False)

    def at(self, key: Key) -> Any:
        value: Any = self.values
        for part in key:
            value = value[part]
        if isinstance(value, dict):
            return _View(self, key)
        return self.resolve(value, key)

    def resolve(self, value: Any, key: Key) -> Any:
        if isinstance(value, dict):
            return {name: self.resolve(part, (*key, name)) for name, part in value.items()}
        if isinstance(value, list):
            return [self.resolve(part, key) for part in value]
        if not isinstance(value, str) or ("{{" not in value and "{%" not in value):
            return value
        if (key, value) not in self._known:
            self._known[key, value] = self._render(value, key)
        return self._known[key, value]

    def _render(self, value: str, key: Key) -> str:
        if len(self._open) >= MAX_CHAIN:
            raise jinja2.TemplateRuntimeError(f"more than {MAX_CHAIN} expressions, each in the next")
        if key in self._open:
            chain = " -> ".join(".".join(part) for part in [*self._open, key])
            raise jinja2.TemplateRuntimeError(f"the expression goes in a circle: {chain}")
        self._open.append(key)
        try:
            # A top-level text may be an expression too; the one being resolved is no name in itself.
            names = {name: self.at((name,)) for name in self.values if (name,) not in self._open}
            return self._sandbox.render_text(value, names)
        except jinja2.TemplateError as error:
            if len(self._open) > 1:
                raise
            problem = f"cannot resolve {shortened(repr(value))}: {shortened(error.message or str(error))}"
            self.problems.append((key, problem))
            return ""
        finally:
            self._open.pop()


def make_environment(layers: Sequence[Layer]) -> Environment:
    """Merge, resolve and validate. Raises one InputError that names every problem with file and line."""
    values = merge(layers)
    _complete_os_version(values)
    resolver = _Resolver(values)
    resolved = resolver.resolve(values, ())
    # An own expression that fails comes first: what follows from it would only hide it.
    own = [problem for problem in resolver.problems if any(_has(layer.values, problem[0]) for layer in layers[2:])]
    if own:
        raise InputError.from_problems([_problem(problem, layers, values) for problem in own])
    try:
        environment = Environment.model_validate(resolved)
    except ValidationError as error:
        problems = [_problem(line, layers, values) for line in _validation_problems(error)]
        raise InputError.from_problems(list(dict.fromkeys(problems))) from error
    if resolver.problems:
        raise InputError.from_problems([_problem(problem, layers, values) for problem in resolver.problems])
    return environment


def _complete_os_version(values: dict[str, Any]) -> None:
    """`22` means `22.04`: the one version of the distribution that begins so."""
    section, distributions = values.get("os"), values.get("distributions")
    if not isinstance(section, dict) or not isinstance(section.get("version"), (str, int)):
        return
    version = str(section["version"])
    name = section.get("distribution")
    distribution = distributions.get(name) if isinstance(distributions, dict) and isinstance(name, str) else None
    known = distribution.get("versions") if isinstance(distribution, dict) else None
    matching = [each for each in known if str(each).startswith(f"{version}.")] if isinstance(known, list) else []
    section["version"] = matching[0] if len(matching) == 1 else version


def _validation_problems(error: ValidationError) -> Iterator[tuple[Key, str]]:
    for detail in error.errors():
        key = tuple(
            str(part) for part in detail["loc"] if not str(part).startswith(("literal[", "tuple[", "function-"))
        )
        if key[:1] == ("builders",) and key[2:3] and key[2] in DRIVERS:
            key = (*key[:2], *key[3:])  # pydantic names the driver, too; the file does not
        if detail["type"] == "extra_forbidden":
            yield key, "no such key"
        elif detail["type"].startswith("union_tag"):
            yield (*key, "driver"), f"expected {', '.join(DRIVERS[:-1])} or {DRIVERS[-1]}"
        elif detail["type"] == "value_error" and not key:
            for line in str(detail["ctx"]["error"]).split("\0"):
                name, _, text = line.partition(": ")
                yield tuple(name.split(".")), text
        elif detail["type"] == "value_error":
            yield key, str(detail["ctx"]["error"])
        else:
            kind = type(detail["input"]).__name__.replace("NoneType", "nothing")
            yield key, f"{detail['msg'].lower().replace('input should be', 'expected')}, got {kind}"


def _problem(problem: tuple[Key, str], layers: Sequence[Layer], values: Mapping[str, Any]) -> str:
    key, text = problem
    if text == "no such key":
        siblings: Any = values
        for part in key[:-1]:
            siblings = siblings.get(part, {}) if isinstance(siblings, dict) else {}
        own = Environment.model_fields if len(key) == 1 else {}
        known = [_field_name(name) for name in own] or [name for name in siblings if name != key[-1]]
        text += nearest(key[-1], known)
    named = key
    while named and not any(_has(layer.values, named) for layer in layers):
        named = named[:-1]
    where = next((layer.where(named) for layer in reversed(layers) if named and _has(layer.values, named)), "")
    return f"{where}: {'.'.join(key)}: {text}" if where else f"{'.'.join(key)}: {text}"


def _field_name(name: str) -> str:
    return name.removesuffix("_")


def _has(values: Any, key: Key) -> bool:
    for part in key:
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return True


def environment_names(root: Path) -> list[str]:
    """The environments that config/ holds."""
    names = (path.stem for path in (root / "config").glob("*.yaml"))
    return sorted(name for name in names if name != "defaults" and not name.endswith(".lock"))


def check_name(name: str) -> None:
    """Raise InputError for the name of an environment that its images and folders cannot have."""
    if not re.fullmatch(NAME, name):
        raise InputError(
            f"config/{shortened(name)}.yaml: images and folders get this name; expected letters, digits and . _ -",
            hint="give the file another name",
        )


def load_layers(root: Path, name: str, environ: Mapping[str, str], settings: Sequence[str] = ()) -> list[Layer]:
    """Read the layers of one environment, in the order in which later wins."""
    names = environment_names(root)
    if name not in names:
        raise InputError(
            f"config/{name}.yaml does not exist; there are: {', '.join(names)}",
            hint=f"cp config/basic.yaml config/{name}.yaml, then edit it" if "/" not in name else "",
        )
    check_name(name)
    defaults = _read(root, "config/defaults.yaml")
    own = _read(root, f"config/{name}.yaml")
    known = list(leaves(defaults.values))
    late = [variables_layer(environ, known), settings_layer(settings, known)]
    release = str(merge([defaults, own, *late])["release"])
    releases = sorted(path.stem for path in (root / "config/releases").glob("*.yaml"))
    if release not in releases:
        where = next(
            layer.where(("release",)) for layer in [*reversed(late), own, defaults] if "release" in layer.values
        )
        raise InputError(f"{where}: release: there is no {release!r}; there are: {', '.join(releases)}")
    return [defaults, _read(root, f"config/releases/{release}.yaml"), own, *late]


def _read(root: Path, relative: str) -> Layer:
    try:
        return parse_layer((root / relative).read_text(encoding="utf-8"), relative)
    except UnicodeDecodeError as error:
        raise InputError(f"{relative}: not UTF-8 text: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise InputError(f"{relative}: cannot be read: {error.strerror}") from error


def load_environment(
    root: Path, name: str, *, environ: Mapping[str, str] | None = None, settings: Sequence[str] = ()
) -> Environment:
    """The environment `name` of the repository at `root`, complete. `environ` defaults to the process's."""
    return make_environment(load_layers(root, name, os.environ if environ is None else environ, settings))
