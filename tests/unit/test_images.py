"""Targets in groups, within what the engine has."""

import pytest

from edgebuild import images
from edgebuild.run import Result


def test_groups_keep_the_order() -> None:
    assert images.groups(["a", "b", "c", "d", "e"], 2) == [("a", "b"), ("c", "d"), ("e",)]
    assert images.groups(["a"], 99) == [("a",)]
    assert images.groups([], 3) == []


@pytest.mark.parametrize(
    ("told", "jobs", "memory", "expected"),
    [
        ("2 24000000000", 0, 512, 16),
        ("2 24000000000", 3, 512, 3),
        ("16 4000000000", 0, 1000, 4),
        ("16 4000000000", 99, 0, 99),
        ("2 100000000", 0, 512, 1),
        ("", 0, 512, 8),
    ],
)
def test_what_the_engine_has_bounds_the_work(
    monkeypatch: pytest.MonkeyPatch, told: str, jobs: int, memory: int, expected: int
) -> None:
    monkeypatch.setattr(images, "run", lambda *_, **__: Result((), 0, told, ""))
    assert images.at_a_time(jobs, memory) == expected
