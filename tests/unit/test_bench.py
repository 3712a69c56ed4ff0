"""The pure parts of the benchmark suite: goals, rows that are kept, page and picture, what of the cache is its own."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from tests.bench import report
from tests.bench.catalogue import ALL, BENCHMARKS
from tests.bench.goals import Limit, Measured, Row, is_met, number, slowest
from tests.bench.machine import marked_records, parse_cache

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("limits", "own", "other", "met"),
    [
        ([Limit(1.2, 0.5)], 0.74, 0.2, True),
        ([Limit(1.2, 0.5)], 0.75, 0.2, False),
        ([Limit(1 / 5), Limit(plus=1)], 0.9, 5.0, True),
        ([Limit(1 / 5), Limit(plus=1)], 1.1, 50.0, False),  # both must hold
        ([Limit(1 / 5), Limit(plus=1)], 0.9, 4.0, False),
        ([Limit(1)], 5.0, 5.0, True),
        ([Limit(plus=0)], 0.0, 0.0, True),
        ([Limit(plus=0)], 1.0, 0.0, False),
        ([], 99.0, 1.0, True),
    ],
)
def test_goals(limits: list[Limit], own: float, other: float, met: bool) -> None:
    assert is_met(Row("x", "y", tuple(limits)), Measured(own, other)) is met


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        (Limit(1 / 5), "≤ 1/5 ×"),
        (Limit(1 / 2.2), "≤ 1/2.2 ×"),
        (Limit(1.03), "≤ 1.03 ×"),
        (Limit(1.2, 0.5), "≤ 1.2 × + 0.5 s"),
        (Limit(1, 2), "≤ +2 s"),
        (Limit(1), "≤ 1 ×"),
        (Limit(plus=1), "≤ 1 s"),
        (Limit(), "≤ 0 s"),
    ],
)
def test_goals_as_text(limit: Limit, text: str) -> None:
    assert limit.text("s") == text


@pytest.mark.parametrize(
    ("value", "text"), [(62.71, "62.7"), (1.974, "1.97"), (0.5, "0.5"), (0.031, "0.031"), (12.0, "12"), (0.0, "0")]
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


def test_the_reason_is_what_took_longest() -> None:
    steps = [("starting", 0.2), ("putting together x.iso", 1.5), ("done", 0.001)]
    assert slowest(steps) == "1.5 s putting together x.iso; 0.2 s starting"
    assert slowest([("[tools 2/2] RUN " + "x" * 99, 3.0)]) == f"3 s [tools 2/2] RUN {'x' * 43}…"


def test_every_row_of_the_catalogue_has_a_name_of_its_own_and_a_goal_that_it_can_miss() -> None:
    assert len(BENCHMARKS) == len(ALL)
    rows = [row for each in ALL for row in each.rows]
    assert len({row.what for row in rows}) == len(rows)
    for row in rows:
        assert row.against or row.limits, row
        assert row.against or not any(limit.times for limit in row.limits), row
        assert "|" not in row.what + row.against, row
    assert sum(each.seconds for each in ALL) < 20 * 60


def result(what: str, own: float, *limits: Limit, date: str = "2026-01-02", reason: str = "") -> report.Result:
    row = Row(what, "bake & co", limits)
    return report.Result("builds", row, Measured(own, 10.0, reason), date, "2 CPUs (x), 8 GB")


ORDER = [("builds", "first"), ("builds", "second"), ("builds", "third <&>")]


def rows() -> list[dict[str, Any]]:
    found = [
        result("third <&>", 40.0, Limit(1 / 5), reason="30 s waiting"),
        result("first", 1.0, Limit(1 / 5)),
        result("second", 3.0),
    ]
    return report.merge([], found, ORDER)


def test_rows_that_were_not_measured_keep_their_figures_and_their_date() -> None:
    before = [*rows(), {**rows()[0], "what": "a row that is no more"}]
    merged = report.merge(before, [result("second", 4.0, date="2026-02-03")], ORDER)
    assert [(row["what"], row["own"], row["date"]) for row in merged] == [
        ("first", 1.0, "2026-01-02"),
        ("second", 4.0, "2026-02-03"),
        ("third <&>", 40.0, "2026-01-02"),
    ]


def test_the_page_shows_goals_results_and_reasons() -> None:
    page = report.page(rows())
    assert "| first | 1 s | bake & co: 10 s | 0.1 × | ≤ 1/5 × = 2 s | met | 2026-01-02 |" in page
    assert "| second | 3 s | bake & co: 10 s | 0.3 × | – | – | 2026-01-02 |" in page
    assert "| third <&> | 40 s | bake & co: 10 s | 4 × | ≤ 1/5 × = 2 s | not met | 2026-01-02 |" in page
    assert "- third <&>: 40 s: 30 s waiting." in page
    assert "Measured on 2026-01-02: 2 CPUs (x), 8 GB." in page
    assert "where the time went" not in report.page([row for row in rows() if row["met"] is not False])


def test_the_picture_has_a_bar_for_each_goal_and_a_mark_where_it_is() -> None:
    picture = ElementTree.fromstring(report.picture(rows()))  # noqa: S314 - our own
    assert [text.text for text in picture.iter(f"{SVG}text")].count("third <&>") == 1
    bars = {
        kind: [each for each in picture.iter(f"{SVG}rect") if each.get("class") == kind] for kind in ("met", "missed")
    }
    assert [len(bars["met"]), len(bars["missed"])] == [1, 1]
    goal = next(picture.iter(f"{SVG}line"))
    start = float(bars["met"][0].get("x", ""))
    width = float(goal.get("x1", "")) - start
    assert float(bars["met"][0].get("width", "")) == pytest.approx(width / 2)
    assert float(bars["missed"][0].get("width", "")) > width
    assert len(list(picture.iter(f"{SVG}path"))) == 1  # it goes on beyond the picture


def test_the_three_files_tell_the_same(tmp_path: Path) -> None:
    report.write(tmp_path, rows())
    assert report.read(tmp_path) == json.loads((tmp_path / report.RESULTS).read_text())["rows"] == rows()
    assert (tmp_path / report.PAGE).read_text() == report.page(report.read(tmp_path))
    assert (tmp_path / report.PICTURE).read_text() == report.picture(report.read(tmp_path))
    report.write(tmp_path, rows())
    assert report.read(tmp_path / "nowhere") == []


CACHE = """ID:\t\ttop
Parent:\t\tmiddle
Description:\t[base 2/2] COPY a b

ID:\t\tmiddle
Parent:\t\tours
Description:\tmount / from exec /bin/sh -c apt-get

ID:\t\tours
Parent:\t\tbottom
Description:\tmount / from exec /bin/sh -c true

bench-mark own
Usage count:\t1

ID:\t\tbottom
Description:\tlocal source

ID:\t\tother
Parent:\t\tbottom
Description:\tmount / from exec /bin/sh -c true
"""


def test_only_what_stands_on_our_own_steps_leaves_the_cache() -> None:
    records = parse_cache(CACHE)
    assert marked_records(records, "bench-mark") == ["top", "middle", "ours"]
    assert marked_records(records, "nothing") == []
    assert marked_records(records, "Usage") == []
