"""What was measured, beside what it may be at most: the arithmetic of the suite. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

NAME_WIDTH = 60  # of a step in a reason


@dataclass(frozen=True)
class Limit:
    """At most `times` × the other side + `plus`; either may be 0. `plus` is in the row's unit."""

    times: float = 0.0
    plus: float = 0.0

    def allowed(self, other: float) -> float:
        return self.times * other + self.plus

    def text(self, unit: str) -> str:
        """`≤ 1/5 ×`, `≤ 1.2 × + 0.5 s`, `≤ 1 s`."""
        parts = []
        if self.times == 1 and self.plus:
            return f"≤ +{number(self.plus)} {unit}"
        if self.times:
            parts.append(f"{_factor(self.times)} ×")
        if self.plus or not parts:
            parts.append(f"{number(self.plus)} {unit}")
        return "≤ " + " + ".join(parts)


def _factor(times: float) -> str:
    """A small one as the fraction that it is: 0.25 is 1/4."""
    whole = round(1 / times, 1)
    if times < 1 and abs(1 / times - whole) < 1e-9:
        return f"1/{number(whole)}"
    return number(times)


def number(value: float) -> str:
    """Short, and never rounded to nothing: 62.7, 1.97, 0.031, 12."""
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    digits = 1 if abs(value) >= 20 else 2 if abs(value) >= 0.095 else 3
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".")


@dataclass(frozen=True)
class Row:
    """One line of the table: what is measured, against what, and what it may be at most.

    `against` is empty where nothing stands on the other side: then only limits without `times` make sense.
    """

    what: str
    against: str
    limits: tuple[Limit, ...] = ()
    unit: str = "s"

    def goal(self) -> str:
        return ", ".join(limit.text(self.unit) for limit in self.limits)

    def allowed(self, other: float) -> float | None:
        """The least of what the limits allow; None without any."""
        return min((limit.allowed(other) for limit in self.limits), default=None)


@dataclass(frozen=True)
class Measured:
    """Both sides of one row, in its unit. `reason` is where the time went; it is shown when the goal is not met."""

    own: float
    other: float = 0.0
    reason: str = ""


def is_met(row: Row, measured: Measured) -> bool:
    """Whether all limits hold; without any there is nothing to miss."""
    allowed = row.allowed(measured.other)
    return allowed is None or measured.own <= allowed


def slowest(steps: Sequence[tuple[str, float]], most: int = 3) -> str:
    """The steps that took longest, as a reason: `1.20 s putting together x.iso; 0.31 s done`."""
    long = sorted(steps, key=lambda step: -step[1])[:most]
    return "; ".join(f"{number(seconds)} s {_shortened(name)}" for name, seconds in long if seconds >= 0.01)


def _shortened(name: str) -> str:
    """A build step's title may be a whole script."""
    return name if len(name) <= NAME_WIDTH else f"{name[: NAME_WIDTH - 1].rstrip()}…"
