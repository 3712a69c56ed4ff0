"""One source of configuration values after the other: YAML files, variables, --set; with the lines they stand in."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from edgebuild.errors import InputError
from edgebuild.model import Environment
from edgebuild.yamltext import Loader, YamlProblem, read_yaml

Key = tuple[str, ...]
PREFIX = "EDGEBUILD_"
TEXT = "tag:yaml.org,2002:str"
NO_TEXT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
MAX_CHARACTERS = 200_000  # of one file
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


class _Loader(Loader):
    """YAML without floats and dates: `22.04` and `1.30` are versions, and stay the text they are."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":float", ":timestamp", ":int"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# Whole numbers are decimal: `0644`, `0x1F` and YAML's `22:04` (base 60) stay text as well.
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"-?(0|[1-9][0-9]{0,17})\Z"), list("-0123456789"))


def parse_layer(text: str, source: str) -> Layer:
    """One YAML file as a layer. Raises InputError with file and line for everything that YAML forbids."""
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"{source}: larger than {MAX_CHARACTERS // 1000} kB; this is no configuration")
    lines: dict[Key, int] = {}

    def look(loader: Loader, node: yaml.Node) -> None:
        if not isinstance(node, yaml.MappingNode):
            raise InputError(f"{source}:{node.start_mark.line + 1}: expected `key: value` lines")
        problems = [f"{source}:{line}: {problem}" for line, problem in _index(loader, node, (), lines)]
        if problems:
            raise InputError.from_problems(list(dict.fromkeys(problems)))

    try:
        values = read_yaml(text, _Loader, look)
    except YamlProblem as error:
        where = f"{source}:{error.line}" if error.line else source
        raise InputError(f"{where}: {error.problem}") from error
    if values is None:
        raise InputError(f"{source}: the file is empty", hint="write at least `schema: 1`")
    return Layer(source, values, lines)


def _index(loader: Loader, node: yaml.Node, parent: Key, lines: dict[Key, int]) -> Iterator[tuple[int, str]]:
    """Fill `lines`; yield line and problem of what is valid YAML, but no configuration."""
    line = node.start_mark.line + 1
    if isinstance(node, yaml.ScalarNode):
        # An explicit tag turns text into what it does not look like.
        if node.tag not in (TEXT, _plain_tag(loader, node)):
            yield line, f"tags such as !!{node.tag.rpartition(':')[2]} are not read here"
        if problem := no_text(node.value):
            yield line, problem
    elif node.tag != _plain_tag(loader, node):
        yield line, f"tags such as !!{node.tag.rpartition(':')[2]} are not read here"
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _index(loader, item, parent, {})
    else:
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag != TEXT or no_text(key_node.value):
                yield line, "a key must be text; write it in quotes"
                continue
            key = (*parent, str(key_node.value))
            if key in lines:
                yield line, f"{'.'.join(key)} stands there twice, first in line {lines[key]}"
            lines[key] = line
            yield from _index(loader, value_node, key, lines)


def _plain_tag(loader: Loader, node: yaml.Node) -> Any:
    """The tag that a node has when none is written in front of it."""
    if isinstance(node, yaml.ScalarNode):
        return loader.resolve(type(node), node.value, (not node.style, bool(node.style)))  # type: ignore[no-untyped-call]
    return loader.resolve(type(node), None, True)  # type: ignore[no-untyped-call]


def no_text(value: str) -> str:
    """What is wrong with a text that no key can hold; empty when nothing is."""
    return "the text holds a control character, or bytes that are not UTF-8" if NO_TEXT.search(value) else ""


def variables_layer(environ: Mapping[str, str], known: Iterable[Key]) -> Layer:
    """The EDGEBUILD_… variables as a layer: EDGEBUILD_IMAGE_TAG is image.tag."""
    names = {PREFIX + "_".join(key).upper(): key for key in known}
    values: dict[str, Any] = {}
    problems = []
    for name, text in environ.items():
        if not name.startswith(PREFIX) or name in RESERVED:
            continue
        if name not in names:
            problems.append(
                f"environment variable {shortened(name)}: no such key{nearest(name, [*names, *RESERVED])}"
            )
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
            problems.append(f"--set {shortened(setting)}: expected key=value, such as image.tag=demo")
        elif key not in leaves and not any(key[: len(leaf)] == leaf for leaf in leaves):
            problems.append(
                f"--set {shortened(name)}: no such key{nearest(name, ['.'.join(leaf) for leaf in leaves])}"
            )
        else:
            _put(values, key, _value(text, key))
    if problems:
        raise InputError.from_problems(problems)
    return Layer("--set", values)


def _value(text: str, key: Key) -> Any:
    """Lists, mappings, switches and numbers are written as in YAML; everything else is the text as it is."""
    if problem := no_text(text):
        raise InputError(f"{'.'.join(key)}: {problem}")
    if _is_text(key):
        return text

    def look(loader: Loader, node: yaml.Node) -> None:
        for _, problem in _index(loader, node, (), {}):
            raise YamlProblem(problem)

    try:
        value = read_yaml(text, _Loader, look)
    except YamlProblem as error:
        if text[:1] in {"[", "{"}:
            raise InputError(f"{'.'.join(key)}: {error.problem}: {shortened(text)}") from error
        return text
    return value if isinstance(value, (list, dict, bool, int)) else text


def shortened(text: str) -> str:
    """A text of the user's for an error message: printable, and no longer than a line."""
    shown = ascii(text)[1:-1] if no_text(text) else text
    return shown if len(shown) <= 200 else f"{shown[:200]}..."


def _is_text(key: Key) -> bool:
    annotation: Any = Environment
    for part in key:
        fields = getattr(annotation, "model_fields", {})
        annotation = fields[part].annotation if part in fields else None
    return annotation is str


def _put(values: dict[str, Any], key: Key, value: Any) -> None:
    for part in key[:-1]:
        if not isinstance(values.get(part), dict):
            values[part] = {}
        values = values[part]
    values[key[-1]] = value


def merge(layers: Sequence[Layer]) -> dict[str, Any]:
    """All layers in one mapping: mappings merge, everything else is replaced by the later layer."""
    result: dict[str, Any] = {}
    for layer in layers:
        _merge(result, layer.values)
    return result


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            if not isinstance(into.get(key), dict):
                into[key] = {}
            _merge(into[key], value)
        else:
            into[key] = value


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
