"""What is to be expected of a build, and how it is told."""

from dataclasses import dataclass

from edgebuild.forecast import Forecast, forecast
from edgebuild.plan import Target
from edgebuild.report import decisions, duration


@dataclass(frozen=True)
class Made:
    kind: str
    size_bytes: int
    seconds: float = 1.0


LAST = {
    "provider-image-1": Made("provider-image", 900),
    "provider-image-2": Made("provider-image", 950),
    "iso-image": Made("installer-image", 850),
    "boot-tree": Made("boot-tree", 400),
    "iso": Made("iso", 410, 2.0),
}
ISO, TREE = Target("iso", "iso"), Target("boot-tree", "boot-tree")
PROVIDER = Target("provider-image-1", "provider-image")
NEW = Target("provider-image-3", "provider-image")


def test_only_the_iso() -> None:
    assert forecast([ISO], [], LAST, {}) == Forecast(2.0, 410)


def test_a_new_version_counts_with_its_payload() -> None:
    assert forecast([NEW], ["kubernetes-3"], LAST, {}) == Forecast(None, 50)
    assert forecast([PROVIDER], ["kubernetes-1"], LAST, {"kubernetes-1": 3.5}) == Forecast(3.5, 50)


def test_a_new_base_counts_once() -> None:
    times = {"base-image": 60.0, "boot-tree-files": 12.0}
    found = forecast([PROVIDER, TREE, ISO], list(times), LAST, times)
    assert found == Forecast(74.0, 850 + 50 + 400 + 410)


def test_without_earlier_runs_nothing_is_said() -> None:
    assert forecast([TREE, ISO], ["base-image"], {}, {}) == Forecast(None, None)
    assert decisions({"iso": ["never built here"]}, Forecast(None, None)) == [
        "build   iso, because never built here",
        "no earlier run tells how long",
    ]


def test_decisions_name_groups_and_reasons() -> None:
    reasons = {**{f"provider-image-{number}": [] for number in range(58)}, "iso": ["a", "b"]}
    assert decisions(reasons, Forecast(75.0, 410_000_000)) == [
        "cached  provider-image-0 to provider-image-57, 58 targets",
        "build   iso, because",
        "          a",
        "          b",
        "about 1 min 15 s, 410.0 MB by earlier runs",
    ]
    many = decisions({"iso": [str(number) for number in range(20)]}, Forecast(1.0, 1))
    assert "          and 12 more: ./inv plan --why iso" in many
    assert decisions({"iso": []}, Forecast(0, 0)) == ["cached  iso"]


def test_durations() -> None:
    assert [duration(each) for each in (0.2, 59.4, 60, 3601)] == ["1 s", "59 s", "1 min 0 s", "60 min 1 s"]
