"""Targets in groups, within what the engine has."""

from pathlib import Path

import pytest

from edgebuild import images
from edgebuild.engine import Engine


def test_groups_keep_the_order() -> None:
    assert images.groups(["a", "b", "c", "d", "e"], 2) == [("a", "b"), ("c", "d"), ("e",)]
    assert images.groups(["a"], 99) == [("a",)]
    assert images.groups([], 3) == []


@pytest.mark.parametrize(
    ("processors", "has", "jobs", "memory", "expected"),
    [
        (2, 24_000_000_000, 0, 512, 16),
        (2, 24_000_000_000, 3, 512, 3),
        (16, 4_000_000_000, 0, 1000, 4),
        (16, 4_000_000_000, 99, 0, 99),
        (2, 100_000_000, 0, 512, 1),
    ],
)
def test_what_the_engine_has_bounds_the_work(
    processors: int, has: int, jobs: int, memory: int, expected: int
) -> None:
    engine = Engine("26.1", "0.13", "", Path("/"), processors, has)
    assert images.at_a_time(engine, jobs, memory) == expected
