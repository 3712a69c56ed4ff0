"""A plan split into parts, the same way on every machine. Pure."""

import re
from collections.abc import Sequence

from edgebuild.errors import InputError
from edgebuild.plan import Kind, Plan, Target

TOGETHER = ("base-image", "installer-image", "boot-tree", "iso")  # one after the other, on one machine


def parse_shard(text: str) -> tuple[int, int]:
    """`2/3` as (2, 3); the whole, (1, 1), for nothing. Raises InputError."""
    if not text:
        return 1, 1
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    number, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= number <= count:
        raise InputError(
            f"--shard {text}: expected a part of a number of parts, from 1 on",
            hint="--shard 1/3 is the first of three",
        )
    return number, count


def units(plan: Plan, kinds: Sequence[Kind]) -> list[tuple[Target, ...]]:
    """What one machine builds as a whole: the ISO with all that it stands on, and each provider image."""
    targets = [target for target in plan.targets if target.kind in kinds]
    chain = tuple(target for target in targets if target.kind in TOGETHER)
    return [*([chain] if chain else []), *((target,) for target in targets if target.kind not in TOGETHER)]


def share(plans: Sequence[Plan], kinds: Sequence[Kind], shard: str) -> list[tuple[Target, ...]]:
    """For each plan the targets of this shard, in the plan's order; none where it has no part of it.

    Neighbours stay together, so that images of one base are built where that base is. A shard may be empty when
    there are more of them than units.
    """
    number, count = parse_shard(shard)
    all_units = [(place, unit) for place, plan in enumerate(plans) for unit in units(plan, kinds)]
    first, end = (len(all_units) * each // count for each in (number - 1, number))
    found: list[list[Target]] = [[] for _ in plans]
    for place, unit in all_units[first:end]:
        found[place] += unit
    return [tuple(target for target in plan.targets if target in own) for plan, own in zip(plans, found, strict=True)]


def matrix(plans: Sequence[Plan], kinds: Sequence[Kind], count: int) -> dict[str, list[dict[str, str]]]:
    """The jobs of a CI run: shard and its environments, for those shards that have anything to build."""
    jobs = []
    for number in range(1, count + 1):
        shard = f"{number}/{count}"
        own = share(plans, kinds, shard)
        names = [plan.environment for plan, targets in zip(plans, own, strict=True) if targets]
        if names:
            jobs.append({"shard": shard, "environments": " ".join(f"--env {name}" for name in names)})
    return {"include": jobs}
