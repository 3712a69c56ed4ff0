"""What goes, by age and size: nothing that others need counts as freed, and what is superseded goes first."""

import hypothesis
import pytest
from hypothesis import strategies

from edgebuild import cleaning
from edgebuild.clearance import Entry, choose, freed, held, parse_age, parse_size, shown
from edgebuild.errors import InputError

BASE = {"base": 1000}
OLD = Entry("superseded image", "old", "a", 50, superseded=True, layers={**BASE, "old": 10})
NEW = Entry("image", "new", "a", 10, layers={**BASE, "new": 20})
RESULTS = Entry("results", "build/a", "a", 100, 500)
LOG = Entry("log", "build/a/logs/x.log", "a", 200, 5)
ALL = [RESULTS, LOG, NEW, OLD]


@pytest.mark.parametrize(("text", "seconds"), [("7d", 604800), ("90m", 5400), ("1h", 3600), ("2w", 1209600)])
def test_ages(text: str, seconds: float) -> None:
    assert parse_age(text) == seconds


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "1.5d", "7 days", "9999999d"])
def test_no_age(text: str) -> None:
    with pytest.raises(InputError, match="is no age") as caught:
        parse_age(text)
    assert "--older-than 7d" in caught.value.hint


@pytest.mark.parametrize(("text", "expected"), [("20GB", 20 * 10**9), ("1.5 tb", 1500 * 10**9), ("0MB", 0)])
def test_sizes(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "20", "GB", "-1GB", "20GiB", "1e3GB"])
def test_no_size(text: str) -> None:
    with pytest.raises(InputError, match="is no size"):
        parse_size(text)


def test_a_layer_counts_once() -> None:
    assert held(ALL) == 500 + 5 + 1000 + 20 + 10
    assert held(ALL, {"base"}) == 500 + 5 + 20 + 10


def test_what_comes_free_is_what_nobody_else_holds() -> None:
    assert freed([OLD], ALL) == 10
    assert freed([OLD, NEW], ALL) == 1030
    assert freed([OLD, NEW], ALL, {"base", "new"}) == 10


def test_all_goes_when_nothing_is_asked() -> None:
    assert choose(ALL) == ALL


def test_by_age() -> None:
    assert choose(ALL, older_than=60) == [LOG, RESULTS]
    assert choose(ALL, older_than=1000) == []


def test_by_size_the_superseded_goes_first_then_the_oldest() -> None:
    assert choose(ALL, keep=10**6) == []
    assert choose(ALL, keep=1530) == [OLD]
    assert choose(ALL, keep=1000) == [OLD, LOG, RESULTS, NEW]
    assert choose(ALL, keep=1020) == [OLD, LOG, RESULTS]
    assert choose(ALL, keep=20, elsewhere={"base"}) == [OLD, LOG, RESULTS]


def test_both_by_age_and_then_by_size() -> None:
    assert choose(ALL, older_than=150, keep=1030) == [LOG, OLD, RESULTS]


entries = strategies.builds(
    Entry,
    kind=strategies.just("image"),
    name=strategies.text(min_size=1, max_size=3),
    environment=strategies.just("a"),
    age_seconds=strategies.floats(0, 1e6),
    size_bytes=strategies.integers(0, 1000),
    superseded=strategies.booleans(),
    layers=strategies.dictionaries(strategies.sampled_from("abcdef"), strategies.just(100)),
)


@hypothesis.given(
    strategies.lists(entries, max_size=8, unique_by=lambda entry: entry.name), strategies.integers(0, 5000)
)
def test_what_stays_fits_and_no_more_goes_than_must(found: list[Entry], keep: int) -> None:
    gone = choose(found, keep=keep)
    stay = [entry for entry in found if entry not in gone]
    assert held(stay) <= keep
    if gone:
        assert held([*stay, gone[-1]]) > keep
    assert held(stay) + freed(gone, found) == held(found)


def test_the_table() -> None:
    logs = [Entry("log", f"build/a/logs/{number}.log", "a", 3600 * number, 10**6) for number in range(20)]
    lines = shown([*logs, OLD], [*logs, *ALL]).splitlines()
    assert lines[0].split() == ["environment", "what", "age", "frees"]
    assert lines[1].split() == ["a", "20", "logs", "19", "hours", "20.0", "MB"]
    assert lines[2].split() == ["a", "superseded", "image", "old", "50", "seconds", "10", "B"]
    assert lines[3] == "together: 20.0 MB"


def test_the_builders_cache() -> None:
    assert cleaning.cache_argv("du", "", older_than=60) == ["docker", "buildx", "du", "--filter", "until=60s"]
    argv = cleaning.cache_argv("prune", "mine", keep=5)
    assert argv == ["docker", "buildx", "prune", "--builder", "mine", "--force", "--keep-storage", "5"]
