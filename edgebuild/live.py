"""The views of a terminal: a table of what is built, bars of what is sent."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from edgebuild.progress import EXPORT, BuildState, Change


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


def _what(title: str) -> str:
    return title.partition("] ")[2] or title


def _elapsed(started: object) -> Text:
    seconds = (datetime.now(UTC) - started).total_seconds() if isinstance(started, datetime) else 0
    return Text(f"{max(seconds, 0):.0f} s")


class Bars:
    """A bar for each image that is on its way, lines above them for what ends."""

    def __init__(self, bars: Progress, references: Sequence[str]) -> None:
        self.bars = bars
        self.tasks = {each: bars.add_task(each, total=None, start=False, visible=False) for each in references}

    def say(self, text: str) -> None:
        self.bars.console.print(Text(text), soft_wrap=True)

    def progress(self, reference: str, sent: int, total: int) -> None:
        task = self.tasks[reference]
        self.bars.start_task(task)
        self.bars.update(task, completed=sent, total=total, visible=True)


@contextmanager
def table(stream: TextIO, targets: Sequence[str]) -> Iterator[LiveView]:
    """The table of a build's targets, gone at its end."""
    with Live(console=_console(stream), refresh_per_second=4, transient=True) as live:
        yield LiveView(live, targets)


@contextmanager
def bars(stream: TextIO, references: Sequence[str]) -> Iterator[Bars]:
    """The bars of a push, gone at its end."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=_console(stream), transient=True) as progress:
        yield Bars(progress, references)


def _console(stream: TextIO) -> Console:
    return Console(file=stream, markup=False, highlight=False)
