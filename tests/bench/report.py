"""The results as JSON, and the page and picture that are rendered from it. Pure but for reading the machine's name."""

import json
import os
import platform
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from tests.bench.goals import Measured, Row, is_met, number

DOCS = Path(__file__).parent.parent.parent / "docs"
RESULTS, PAGE, PICTURE = "benchmarks.json", "benchmarks.md", "benchmarks.svg"
TEMPLATES = Path(__file__).parent / "templates"
# Sizes of the picture, in its own units.
LABEL_WIDTH, BAR_WIDTH, TEXT_WIDTH, ROW_HEIGHT, TOP = 340, 300, 250, 26, 66
GOAL_SHARE = 2 / 3  # where in the width of the bars the goal stands
NOT_MET = "not met"


@dataclass(frozen=True)
class Result:
    """One line of the page."""

    benchmark: str
    row: Row
    measured: Measured
    date: str
    machine: str

    @property
    def met(self) -> bool:
        return is_met(self.row, self.measured)

    def to_json(self) -> dict[str, Any]:
        row, measured = self.row, self.measured
        return {
            "benchmark": self.benchmark,
            "what": row.what,
            "unit": row.unit,
            "own": round(measured.own, 4),
            "against": row.against,
            "other": round(measured.other, 4) if row.against else None,
            "goal": row.goal(),
            "allowed": _rounded(row.allowed(measured.other)),
            "met": self.met if row.limits else None,
            "reason": measured.reason,
            "date": self.date,
            "machine": self.machine,
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def machine() -> str:
    """CPUs and their model, memory, engine's host system."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{os.cpu_count()} CPUs ({model[1] if model else platform.machine()}), {memory:.0f} GB"


def today() -> str:
    return time.strftime("%Y-%m-%d")


def merge(
    before: Sequence[Mapping[str, Any]], results: Sequence[Result], order: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """The rows measured now, and the earlier ones of those that were not; in this order of (benchmark, what).

    Rows that no benchmark has any more are left out.
    """
    found = {(str(each["benchmark"]), str(each["what"])): dict(each) for each in before}
    found |= {(each.benchmark, each.row.what): each.to_json() for each in results}
    return [found[key] for key in order if key in found]


def read(folder: Path) -> list[dict[str, Any]]:
    """The earlier rows; none where there is no file yet."""
    file = folder / RESULTS
    if not file.exists():
        return []
    rows: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["rows"]
    return rows


def write(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The three files in docs/."""
    (folder / RESULTS).write_text(json.dumps({"rows": list(rows)}, indent=2, ensure_ascii=False) + "\n", "utf-8")
    (folder / PAGE).write_text(page(rows), encoding="utf-8")
    (folder / PICTURE).write_text(picture(rows), encoding="utf-8")


def page(rows: Sequence[Mapping[str, Any]]) -> str:
    """docs/benchmarks.md."""
    lines = [{**row, **_texts(row)} for row in rows]
    runs = sorted({(str(row["date"]), str(row["machine"])) for row in rows}, reverse=True)
    missed = [row for row in lines if row["met"] is False]
    return _template("benchmarks.md.j2").render(rows=lines, runs=runs, missed=missed, picture=PICTURE)


def amount(value: float, unit: str) -> str:
    return f"{number(value)} {unit}"


def _texts(row: Mapping[str, Any]) -> dict[str, str]:
    own, other, unit = float(row["own"]), row["other"], str(row["unit"])
    against = f"{row['against']}: {amount(other, unit)}" if other is not None else "–"
    ratio = f"{number(own / other)} ×" if other else "–"
    allowed = "" if row["allowed"] is None else amount(float(row["allowed"]), unit)
    goal = str(row["goal"])
    shown_goal = f"{goal} = {allowed}" if "×" in goal or "+" in goal else goal
    result = {True: "met", False: NOT_MET, None: "–"}[row["met"]]
    return {
        "own_text": amount(own, unit),
        "against_text": against,
        "ratio": ratio,
        "goal_text": shown_goal or "–",
        "result": result,
    }


def picture(rows: Sequence[Mapping[str, Any]]) -> str:
    """docs/benchmarks.svg: for each row with a goal, how much of what is allowed was needed."""
    goals = [row for row in rows if row["met"] is not None]
    bars = []
    for index, row in enumerate(goals):
        share = _share(float(row["own"]), float(row["allowed"]))
        texts = _texts(row)
        bars.append(
            {
                "y": TOP + index * ROW_HEIGHT,
                "label": row["what"],
                "width": round(max(2.0, min(share * GOAL_SHARE, 1.0) * BAR_WIDTH), 1),
                "met": row["met"],
                "beyond": share * GOAL_SHARE > 1,
                "text": f"{texts['own_text']} of {amount(float(row['allowed']), str(row['unit']))}",
            }
        )
    sizes = {"label": LABEL_WIDTH, "bar": BAR_WIDTH, "row": ROW_HEIGHT, "top": TOP}
    return _template("benchmarks.svg.j2").render(
        bars=bars,
        sizes=sizes,
        goal_x=round(LABEL_WIDTH + GOAL_SHARE * BAR_WIDTH, 1),
        width=LABEL_WIDTH + BAR_WIDTH + TEXT_WIDTH,
        height=TOP + len(bars) * ROW_HEIGHT + 14,
    )


def _share(own: float, allowed: float) -> float:
    """Part of what is allowed; where nothing is allowed, nothing or far too much."""
    if allowed > 0:
        return own / allowed
    return 0.0 if own <= 0 else 2.0


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=name.endswith(".svg.j2"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)


def line(result: Result) -> str:
    """For the terminal."""
    texts = _texts(result.to_json())
    shown = f"{result.row.what}: {texts['own_text']}"
    if result.row.against:
        shown += f" | {texts['against_text']} | {texts['ratio']}"
    if result.row.limits:
        shown += f" | {texts['goal_text']} | {texts['result']}"
    reason = result.measured.reason
    return shown + (f"\n    reason: {reason}" if reason and not result.met else "")
