"""Jinja for what a user writes into configuration and user-data: sandboxed, and bounded in work and memory. Pure.

Whatever stands in an expression, rendering ends soon, in a text or in a jinja2.TemplateError.
"""

import functools
import time
from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.filters import FILTERS
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_WORK = 8_000_000  # characters and items made or looked at
ITEM_WORK, RENDER_WORK = 100, 10_000  # of an item in a list or a round of a loop, and of one expression
MAX_SECONDS = 10.0
MAX_NUMBER = 10**18
MAX_POWER = 100
_FILTERS = """
    abs capitalize count d default dictsort first float int items last length list lower map max min reject rejectattr
    reverse select selectattr sort string title trim unique upper
"""
_METHODS = """
    count endswith find get isdigit items keys lower lstrip partition removeprefix removesuffix replace rpartition
    rsplit rstrip split splitlines startswith strip title upper values
"""
TOO_LARGE = "this expression makes too much, or takes too long"


class Sandbox(ImmutableSandboxedEnvironment):
    """Expressions, and with `statements` also {% if %} and {% for %}. `finalize` makes the text of a value.

    The bounds are those of all that one Sandbox renders.
    """

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self, *, statements: bool, finalize: Callable[[Any], str] = str) -> None:
        super().__init__(
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=statements,
            optimized=False,  # what is computed while compiling is not counted
            finalize=self._write,
        )
        self.statements = statements
        self.globals = {"range": self.globals["range"]}
        self.filters = {name: self._bounded(FILTERS[name]) for name in _FILTERS.split()}
        self.filters.update(_weigh=self._weigh, _rounds=self._rounds, _concat=self._join)
        self.filters.update(join=self._join, replace=self._replace)
        self.tests = {name: self._bounded(test) for name, test in self.tests.items()}
        self._text = finalize
        self._left, self._deadline = MAX_WORK, time.monotonic() + MAX_SECONDS

    def render_text(self, source: str, values: Mapping[str, Any]) -> str:
        """The text of a template. Raises jinja2.TemplateError for whatever goes wrong."""
        self._left -= RENDER_WORK
        try:
            self._spend(0)
            code = _compiled(source, self.statements)
            template = self.template_class.from_code(self, code, self.make_globals(None))
            return "".join(map(self._weigh, template.generate(values)))
        except jinja2.TemplateError:
            raise
        except (RecursionError, MemoryError) as error:
            raise jinja2.TemplateRuntimeError("nested too deeply") from error
        except Exception as error:  # an expression can raise whatever Python can
            problem = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise jinja2.TemplateRuntimeError(problem).with_traceback(error.__traceback__) from error

    def _spend(self, *values: Any) -> None:
        """Count what is in these values, down to the last character. Raises when it is too much."""
        waiting = list(values)
        while waiting:
            value = waiting.pop()
            self._left -= len(value) if isinstance(value, (str, range)) else 1
            if self._left < 0 or time.monotonic() > self._deadline:
                raise jinja2.TemplateRuntimeError(TOO_LARGE)
            if isinstance(value, (list, tuple)):
                self._left -= ITEM_WORK * len(value)
                waiting += value if self._left >= 0 else ()
            elif isinstance(value, dict):
                waiting += [*value.keys(), *value.values()]

    def _number(self, value: Any) -> Any:
        if isinstance(value, int) and abs(value) > MAX_NUMBER:
            raise jinja2.TemplateRuntimeError(TOO_LARGE)
        return value

    def _weigh(self, value: Any) -> Any:
        self._spend(value)
        return value

    def _rounds(self, value: Any) -> Any:
        for item in value:
            self._left -= ITEM_WORK
            self._spend(0)
            yield item

    def _write(self, value: Any) -> str:
        if isinstance(value, jinja2.Undefined):
            return str(value)
        if not isinstance(value, (str, int, float, list, dict, type(None))):
            raise jinja2.TemplateRuntimeError(
                "this is no text, number or list; name a key of it, or put `| list` behind it"
            )
        self._spend(value)
        text = self._text(value)
        self._spend(text)
        return text

    def _bounded(self, function: Any) -> Callable[..., Any]:
        @functools.wraps(function)  # it also takes over what Jinja passes to this filter
        def bounded(*arguments: Any, **options: Any) -> Any:
            self._spend(*arguments, *options.values())
            return self._number(function(*arguments, **options))

        return bounded

    def _join(self, value: Any, separator: str = "") -> str:
        parts = list(value)
        self._spend(parts)
        self._left -= len(parts) * len(str(separator))
        self._spend(0)
        return str(separator).join(map(str, parts))

    def _replace(self, value: Any, old: str, new: str) -> str:
        text = str(self._weigh(value))
        self._left -= len(text) + (text.count(old) or 1) * len(new)
        self._spend(0)
        return text.replace(old, new)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Numbers stay small, and nothing is repeated or formatted into something large."""
        plain = isinstance(left, (int, float)) and isinstance(right, (int, float))
        if operator == "*" and not plain:
            for times, value in ((left, right), (right, left)):
                if isinstance(times, int):
                    self._left -= max(times, 0) * (len(value) if isinstance(value, (str, list)) else 1)
            self._spend(0)
            result = super().call_binop(context, operator, left, right)
            self._spend(result)
            return result
        if operator == "%" and not plain:
            raise jinja2.TemplateRuntimeError("% is for numbers; texts are put together by ~")
        if operator == "**" and (not plain or abs(right) > MAX_POWER):
            raise jinja2.TemplateRuntimeError(TOO_LARGE)
        self._spend(left, right)
        return self._number(super().call_binop(context, operator, left, right))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Of what can be called, only a few methods of texts and mappings."""
        return super().is_safe_attribute(obj, attr, value) and (not callable(value) or attr in _METHODS.split())

    def wrap_str_format(self, value: Any) -> None:
        """No way around is_safe_attribute for str.format, whose widths have no bound."""

    def call(self, context: Context, obj: Any, *arguments: Any, **options: Any) -> Any:
        """Count a call's work before it is done."""
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        if isinstance(owner, str) and name == "replace":
            return self._replace(owner, *arguments, **options)
        self._spend(owner, *arguments, *options.values())
        return super().call(context, obj, *arguments, **options)


@functools.lru_cache(maxsize=256)
def _compiled(source: str, statements: bool) -> CodeType:
    sandbox = Sandbox(statements=statements)
    tree = sandbox.parse(source)
    for node in tree.find_all(nodes.Stmt):
        if isinstance(node, nodes.Output) or (statements and isinstance(node, (nodes.If, nodes.For))):
            continue
        allowed = "{% if %} and {% for %}" if statements else "{{ }}, and no {% %},"
        raise jinja2.TemplateSyntaxError(f"only {allowed} may stand here", node.lineno)
    return sandbox.compile(_Counting().visit(tree), filename="<template>")


class _Counting(NodeTransformer):
    """Puts the counting where no hook of the sandbox looks: loops, comparisons and `~`."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        if node.recursive:
            raise jinja2.TemplateSyntaxError("`recursive` may not stand here", node.lineno)
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "_rounds")
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _filtered(node.expr, "_weigh")
        for operand in node.ops:
            operand.expr = _filtered(operand.expr, "_weigh")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "_concat")

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        if node.ctx == "load":
            raise jinja2.TemplateSyntaxError("a list is written in brackets: [ ]", node.lineno)
        return node


def _filtered(node: Any, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)
