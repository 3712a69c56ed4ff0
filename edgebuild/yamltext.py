"""YAML text to values, bounded: whatever a file holds, reading ends in values or in a problem with its line. Pure."""

from collections.abc import Callable
from typing import Any

import yaml

MAX_CHARACTERS = 4_000_000  # with all aliases written out; Kairos reads at most 2 MB
MAX_DEPTH = 50


class YamlProblem(Exception):
    """What is wrong with a text; `line` counts from 1, and is 0 where no line is known."""

    def __init__(self, problem: str, line: int = 0) -> None:
        super().__init__(problem)
        self.problem = problem
        self.line = line


class Loader(yaml.SafeLoader):
    """PyYAML's, but it stops in the depth before it is slow there, and before Python's stack ends."""

    def fetch_flow_collection_start(self, token_class: Any) -> None:
        self._deeper(self.flow_level)
        super().fetch_flow_collection_start(token_class)

    def add_indent(self, column: int) -> bool:
        self._deeper(len(self.indents))
        return bool(super().add_indent(column))

    def _deeper(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise YamlProblem("nested too deeply", self.line + 1)


def read_yaml(text: str, loader_type: type[Loader], look: Callable[[Loader, yaml.Node], None] | None = None) -> Any:
    """The one document in `text`, None when there is none. Raises YamlProblem.

    `look` sees the loader and the document's node before any value is made of it.
    """
    try:
        loader = loader_type(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _measure(node, {}, set())
            if look:
                look(loader, node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise _problem(error, text) from error
    except RecursionError as error:
        raise YamlProblem("nested too deeply") from error
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        # PyYAML's own way to say that a value does not fit the tag in front of it.
        raise YamlProblem("not valid YAML: a value does not fit its type or its tag (!!)") from error


def _problem(error: yaml.YAMLError, text: str) -> YamlProblem:
    if isinstance(error, yaml.reader.ReaderError):
        return YamlProblem(f"not valid YAML: {error.reason}", text.count("\n", 0, error.position) + 1)
    mark = getattr(error, "problem_mark", None)
    problem = str(getattr(error, "problem", "") or error)
    if "'\\t'" in problem:
        problem = "the line is indented with a tab; YAML wants spaces"
    else:
        problem = f"not valid YAML: {problem}"
    return YamlProblem(problem, mark.line + 1 if mark else 0)


def _measure(node: yaml.Node, known: dict[int, tuple[int, int]], parents: set[int]) -> tuple[int, int]:
    """Characters and depth with aliases written out. Raises YamlProblem for what would not end, or not fit."""
    if id(node) in parents:
        raise YamlProblem("an alias (*) stands inside its own anchor (&)", node.start_mark.line + 1)
    if id(node) not in known:
        parents.add(id(node))
        children: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            children = [each for pair in node.value for each in pair]
        size, depth = 1 if children else 1 + len(node.value), 0
        for child in children:
            child_size, child_depth = _measure(child, known, parents)
            size, depth = size + child_size, max(depth, child_depth)
        if size > MAX_CHARACTERS:
            raise YamlProblem("its aliases (*) make it too large", node.start_mark.line + 1)
        if depth >= MAX_DEPTH:
            raise YamlProblem("nested too deeply", node.start_mark.line + 1)
        known[id(node)] = size, depth + 1
        parents.remove(id(node))
    return known[id(node)]
