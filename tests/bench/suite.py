"""What a benchmark is; each module of a group has a tuple of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.bench.goals import Limit, Measured, Row
from tests.bench.machine import Bench


@dataclass(frozen=True)
class Benchmark:
    """`measure` gives one Measured for each row; `seconds` is about what it takes on two quiet cores."""

    name: str
    seconds: int
    rows: tuple[Row, ...]
    measure: Callable[[Bench], Sequence[Measured]]


def at_most(times: float = 0.0, *, plus: float = 0.0) -> Limit:
    """A goal: at most `times` × the other side, + `plus`."""
    return Limit(times, plus)
