"""One source of configuration values after the other: YAML files, variables, --set; with the lines they stand in."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

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
            problems.append(f"environment variable {name}: no such key{nearest(name, [*names, *RESERVED])}")
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
            problems.append(f"--set {name}: no such key{nearest(name, ['.'.join(leaf) for leaf in leaves])}")
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


def leaves(values: Mapping[str, Any], parent: Key = ()) -> Iterator[Key]:
    """The keys that hold values and no further keys."""
    for name, value in values.items():
        key = (*parent, name)
        if isinstance(value, dict) and value:
            yield from leaves(value, key)
        else:
            yield key


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for an error about `name`: the known name that looks most like it, or a few known ones."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there are: {', '.join(known)}" if len(known) <= 25 else ""
