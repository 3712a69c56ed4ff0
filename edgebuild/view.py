"""What the person sees while a build runs: a live table on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from edgebuild.progress import EXPORT, BuildState, Change


class View(Protocol):
    """Shown what happens; says what it likes on standard error."""

    def change(self, state: BuildState, change: Change, /) -> None: ...


class PlainView:
    """A line when a step ends, but for cached and instant ones."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.shown: set[str] = set()

    def change(self, _: BuildState, change: Change) -> None:
        step = change.step
        if not step.completed or step.cached or not step.stage or step.seconds < 0.05 or step.key in self.shown:
            return
        self.shown.add(step.key)
        outcome = "failed" if step.error else f"{step.seconds:.1f} s"
        self.console.print(Text(f"  {_short(step.title, 100)}  {outcome}"), soft_wrap=True)


class LiveView:
    """A line for each target: its running step, and the time since the build began."""

    def __init__(self, live: Live, targets: Sequence[str]) -> None:
        self.live, self.targets = live, targets

    def change(self, state: BuildState, _: Change) -> None:
        self.live.update(self.table(state))

    def table(self, state: BuildState) -> Table:
        """Shared stages stand above the targets that wait for them."""
        table = Table.grid(padding=(0, 2), expand=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column(no_wrap=True, justify="right")
        own = set(self.targets)
        shared = {step.key: step for step in state.running() if step.stage and step.stage not in own}
        for step in shared.values():
            table.add_row(Text(step.stage, style="dim"), Text(_what(step.title)), _elapsed(step.started))
        for target in self.targets:
            running = state.running({target})
            steps = [step for step in state.steps.values() if step.stage == target]
            if running:
                table.add_row(Text(target, style="bold"), Text(_what(running[0].title)), _elapsed(running[0].started))
            elif any(step.error for step in steps):
                table.add_row(Text(target, style="red"), Text("failed"), Text())
            elif any(step.completed and EXPORT.match(step.name) for step in steps):
                table.add_row(Text(target, style="green"), Text("built"), Text(f"{state.seconds(target):.1f} s"))
            else:
                table.add_row(Text(target, style="dim"), Text("waits", style="dim"), Text())
        return table


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _what(title: str) -> str:
    return title.partition("] ")[2] or title


def _elapsed(started: object) -> Text:
    seconds = (datetime.now(UTC) - started).total_seconds() if isinstance(started, datetime) else 0
    return Text(f"{max(seconds, 0):.0f} s")


@contextmanager
def open_view(targets: Sequence[str], *, alone: bool = True) -> Iterator[View]:
    """The view for this process's standard error. Only a build that is `alone` has the terminal for a table."""
    console = Console(file=sys.stderr, markup=False, highlight=False)
    if not console.is_terminal or not alone:
        yield PlainView(console)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield LiveView(live, targets)


class Transfer:
    """Lines for what ends; on a terminal also a bar for each image that is on its way."""

    def __init__(self, console: Console, bars: Progress | None, references: Sequence[str]) -> None:
        self.console, self.bars = console, bars
        self.tasks = (
            {each: bars.add_task(each, total=None, start=False, visible=False) for each in references} if bars else {}
        )

    def say(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=True)

    def progress(self, reference: str, sent: int, total: int) -> None:
        if self.bars:
            task = self.tasks[reference]
            self.bars.start_task(task)
            self.bars.update(task, completed=sent, total=total, visible=True)


@contextmanager
def open_transfer(references: Sequence[str]) -> Iterator[Transfer]:
    """The view of a push for this process's standard error."""
    console = Console(file=sys.stderr, markup=False, highlight=False)
    if not console.is_terminal:
        yield Transfer(console, None, references)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        yield Transfer(console, bars, references)
