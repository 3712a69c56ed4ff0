"""From layers of YAML to an Environment: read, merge, resolve expressions, validate; all errors at once."""

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import yaml
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import ValidationError

from edgebuild.errors import InputError
from edgebuild.model import Environment

Key = tuple[str, ...]
PREFIX = "EDGEBUILD_"
RESERVED = {"EDGEBUILD_ENV", "EDGEBUILD_ENGINE"}  # read elsewhere; no configuration keys


@dataclass(frozen=True)
class Layer:
    """One source of values: its name as shown in errors, the values, and the line of each key."""

    source: str
    values: dict[str, Any]
    lines: dict[Key, int] = field(default_factory=dict)

    def where(self, key: Key) -> str:
        line = self.lines.get(key)
        return f"{self.source}:{line}" if line else self.source


class _Loader(yaml.SafeLoader):
    """YAML without floats and dates: `22.04` and `1.30` are versions, and stay the text they are."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":float", ":timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse_layer(text: str, source: str) -> Layer:
    """One YAML file as a layer. Raises InputError with file and line for everything that YAML forbids."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise InputError(f"{source}: the file is empty", hint="write at least `schema: 1`")
        if not isinstance(node, yaml.MappingNode):
            raise InputError(f"{source}:{node.start_mark.line + 1}: expected `key: value` lines")
        lines: dict[Key, int] = {}
        problems = list(_index(node, (), lines, source))
        if problems:
            raise InputError.from_problems(problems)
        values: dict[str, Any] = loader.construct_document(node)
    except yaml.YAMLError as error:
        raise InputError(_yaml_problem(error, source)) from error
    finally:
        loader.dispose()
    return Layer(source, values, lines)


def _yaml_problem(error: yaml.YAMLError, source: str) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"{source}:{mark.line + 1}" if mark else source
    problem = str(getattr(error, "problem", "") or error)
    if "'\\t'" in problem:
        return f"{where}: the line is indented with a tab; YAML wants spaces"
    return f"{where}: not valid YAML: {problem}"


def _index(node: yaml.MappingNode, parent: Key, lines: dict[Key, int], source: str) -> Iterator[str]:
    for key_node, value_node in node.value:
        key = (*parent, str(key_node.value))
        line = key_node.start_mark.line + 1
        if key in lines:
            yield f"{source}:{line}: {'.'.join(key)} stands there twice, first in line {lines[key]}"
        lines[key] = line
        if isinstance(value_node, yaml.MappingNode):
            yield from _index(value_node, key, lines, source)


def variables_layer(environ: Mapping[str, str], known: Iterable[Key]) -> Layer:
    """The EDGEBUILD_… variables as a layer: EDGEBUILD_IMAGE_TAG is image.tag."""
    names = {PREFIX + "_".join(key).upper(): key for key in known}
    values: dict[str, Any] = {}
    problems = []
    for name, text in environ.items():
        if not name.startswith(PREFIX) or name in RESERVED:
            continue
        if name not in names:
            problems.append(f"environment variable {name}: no such key{_nearest(name, [*names, *RESERVED])}")
        else:
            _put(values, names[name], _value(text, names[name]))
    if problems:
        raise InputError.from_problems(problems)
    return Layer("environment variables", values)


def settings_layer(settings: Sequence[str], known: Iterable[Key]) -> Layer:
    """`--set key=value` arguments as a layer."""
    leaves = set(known)
    values: dict[str, Any] = {}
    problems = []
    for setting in settings:
        name, equals, text = setting.partition("=")
        key = tuple(name.split("."))
        if not equals:
            problems.append(f"--set {setting}: expected key=value, such as image.tag=demo")
        elif key not in leaves and not any(key[: len(leaf)] == leaf for leaf in leaves):
            problems.append(f"--set {name}: no such key{_nearest(name, ['.'.join(leaf) for leaf in leaves])}")
        else:
            _put(values, key, _value(text, key))
    if problems:
        raise InputError.from_problems(problems)
    return Layer("--set", values)


def _value(text: str, key: Key) -> Any:
    """Lists, mappings, switches and numbers are written as in YAML; everything else is the text as it is."""
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        if text[:1] in "[{":
            raise InputError(f"{'.'.join(key)}: not valid YAML: {text}") from error
        return text
    return value if isinstance(value, (list, dict, bool, int)) and not _is_text(key) else text


def _is_text(key: Key) -> bool:
    annotation: Any = Environment
    for part in key:
        fields = getattr(annotation, "model_fields", {})
        annotation = fields[part].annotation if part in fields else None
    return annotation is str


def _put(values: dict[str, Any], key: Key, value: Any) -> None:
    for part in key[:-1]:
        values = values.setdefault(part, {})
    values[key[-1]] = value


def merge(layers: Sequence[Layer]) -> dict[str, Any]:
    """All layers in one mapping: mappings merge, everything else is replaced by the later layer."""
    result: dict[str, Any] = {}
    for layer in layers:
        _merge(result, layer.values)
    return result


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = {**value} if isinstance(value, dict) else value


def _leaves(values: Mapping[str, Any], parent: Key = ()) -> Iterator[Key]:
    for name, value in values.items():
        key = (*parent, name)
        if isinstance(value, dict) and value:
            yield from _leaves(value, key)
        else:
            yield key


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
        self._jinja = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)

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
        if not isinstance(value, str) or "{{" not in value:
            return value
        if key in self._open:
            chain = " -> ".join(".".join(part) for part in [*self._open, key])
            raise jinja2.TemplateRuntimeError(f"the expression goes in a circle: {chain}")
        self._open.append(key)
        try:
            # A top-level text may be an expression too; the one being resolved is no name in itself.
            names = {name: self.at((name,)) for name in self.values if (name,) not in self._open}
            return self._jinja.from_string(value).render(names)
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            if len(self._open) > 1:
                raise
            self.problems.append((key, f"cannot resolve {value!r}: {getattr(error, 'message', None) or error}"))
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
    section = values.get("os")
    if not isinstance(section, dict) or not isinstance(section.get("version"), (str, int)):
        return
    version = str(section["version"])
    distribution = values.get("distributions", {}).get(section.get("distribution"), {})
    matching = [known for known in distribution.get("versions", ()) if known.startswith(f"{version}.")]
    section["version"] = matching[0] if len(matching) == 1 else version


def _validation_problems(error: ValidationError) -> Iterator[tuple[Key, str]]:
    for detail in error.errors():
        key = tuple(
            str(part) for part in detail["loc"] if not str(part).startswith(("literal[", "tuple[", "function-"))
        )
        if detail["type"] == "extra_forbidden":
            yield key, "no such key"
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
        siblings = values
        for part in key[:-1]:
            siblings = siblings.get(part, {})
        own = Environment.model_fields if len(key) == 1 else {}
        known = [_field_name(name) for name in own] or [name for name in siblings if name != key[-1]]
        text += _nearest(key[-1], known)
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


def _nearest(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there are: {', '.join(known)}" if len(known) <= 25 else ""


def environment_names(root: Path) -> list[str]:
    """The environments that config/ holds."""
    return sorted(path.stem for path in (root / "config").glob("*.yaml") if path.stem != "defaults")


def load_layers(root: Path, name: str, environ: Mapping[str, str], settings: Sequence[str] = ()) -> list[Layer]:
    """Read the layers of one environment, in the order in which later wins."""
    names = environment_names(root)
    if name not in names:
        raise InputError(
            f"config/{name}.yaml does not exist; there are: {', '.join(names)}",
            hint=f"cp config/basic.yaml config/{name}.yaml, then edit it" if "/" not in name else "",
        )
    defaults = _read(root, "config/defaults.yaml")
    own = _read(root, f"config/{name}.yaml")
    known = list(_leaves(defaults.values))
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
