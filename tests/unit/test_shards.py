"""Parts of a plan: together they are the whole, the same on every machine."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebuild.config import load_environment
from edgebuild.errors import InputError
from edgebuild.plan import ALL_KINDS, Plan, make_plan
from edgebuild.shards import matrix, parse_shard, share

ROOT = Path(__file__).parent.parent.parent


def plan(name: str, versions: int) -> Plan:
    found = [f"1.30.{number}" for number in range(versions)]
    return make_plan(name, load_environment(ROOT, "demo", environ={}, settings=[f"kubernetes.versions={found}"]))


PLANS = [plan("one", 5), plan("two", 1)]


@given(st.integers(1, 20))
def test_shards_are_the_whole_and_no_target_twice(count: int) -> None:
    parts = [share(PLANS, ALL_KINDS, f"{number}/{count}") for number in range(1, count + 1)]
    for place, whole in enumerate(PLANS):
        found = [target.name for part in parts for target in part[place]]
        assert sorted(found) == sorted(target.name for target in whole.targets if target.kind in ALL_KINDS)


def test_an_iso_and_what_it_stands_on_are_one_part() -> None:
    for number in range(1, 9):
        for targets in share(PLANS, ALL_KINDS, f"{number}/8"):
            kinds = {target.kind for target in targets} - {"provider-image"}
            assert kinds in (set(), {"installer-image", "boot-tree", "iso"})


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "a/b", "-1/3", "1/3/3", "1.0/3"])
def test_a_shard_outside_its_range(text: str) -> None:
    with pytest.raises(InputError, match="--shard"):
        parse_shard(text)


def test_the_matrix_names_the_environments_of_each_job() -> None:
    found = matrix(PLANS, ALL_KINDS, 3)["include"]
    assert [job["shard"] for job in found] == ["1/3", "2/3", "3/3"]
    assert found[0]["environments"] == "--env one"
    assert found[2]["environments"] == "--env one --env two" or found[2]["environments"] == "--env two"
    assert len(matrix(PLANS, ALL_KINDS, 100)["include"]) == 8  # no job without work
