"""What the person sees while a build or a push runs: plain lines, or on a terminal a live table or bars."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TextIO

from edgebuild.progress import BuildState, Change


class View(Protocol):
    """Shown what happens; says what it likes on standard error."""

    def change(self, state: BuildState, change: Change, /) -> None: ...


class Transfer(Protocol):
    """Told what a push says, and how far each image is."""

    def say(self, text: str) -> None: ...

    def progress(self, reference: str, sent: int, total: int) -> None: ...


class PlainView:
    """A line when a step ends, but for cached and instant ones."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.shown: set[str] = set()

    def change(self, _: BuildState, change: Change) -> None:
        step = change.step
        if not step.completed or step.cached or not step.stage or step.seconds < 0.05 or step.key in self.shown:
            return
        self.shown.add(step.key)
        outcome = "failed" if step.error else f"{step.seconds:.1f} s"
        print(f"  {_short(step.title, 100)}  {outcome}", file=self.stream, flush=True)


class PlainTransfer:
    """Lines for what ends."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def say(self, text: str) -> None:
        print(text, file=self.stream, flush=True)

    def progress(self, reference: str, sent: int, total: int) -> None:
        pass


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


@contextmanager
def open_view(targets: Sequence[str], *, alone: bool = True) -> Iterator[View]:
    """The view for this process's standard error. Only a build that is `alone` has the terminal for a table."""
    if not sys.stderr.isatty() or not alone:
        yield PlainView(sys.stderr)
        return
    from edgebuild import live  # with Rich, which takes a while

    with live.table(sys.stderr, targets) as view:
        yield view


@contextmanager
def open_transfer(references: Sequence[str]) -> Iterator[Transfer]:
    """The view of a push for this process's standard error."""
    if not sys.stderr.isatty():
        yield PlainTransfer(sys.stderr)
        return
    from edgebuild import live

    with live.bars(sys.stderr, references) as transfer:
        yield transfer
