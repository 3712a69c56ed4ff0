"""How long a build will take, and what it will write: by what earlier runs of the environment took. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from edgebuild.plan import Target


class Made(Protocol):
    """What earlier results tell of an artifact."""

    @property
    def kind(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def seconds(self) -> float: ...


@dataclass(frozen=True)
class Forecast:
    """Seconds and bytes to be expected; None where no earlier run tells."""

    seconds: float | None
    size_bytes: int | None


def forecast(
    targets: Sequence[Target], stages: Sequence[str], last: Mapping[str, Made], seconds: Mapping[str, float]
) -> Forecast:
    """Of building `targets`, for which these `stages` will run.

    `last` are the artifacts of the last set by name, `seconds` what stages took when they ran last.
    """
    isos = [target for target in targets if target.kind == "iso"]
    known = [last[target.name].seconds for target in isos if target.name in last]
    time = None
    if len(known) == len(isos) and all(stage in seconds for stage in stages):
        time = sum(seconds[stage] for stage in stages) + sum(known)
    return Forecast(time, _bytes(targets, stages, last))


def _bytes(targets: Sequence[Target], stages: Sequence[str], last: Mapping[str, Made]) -> int | None:
    """An image counts with what it has over the smallest one: that is shared, and counts once if it is built."""
    systems = [each.size_bytes for each in last.values() if each.kind in {"provider-image", "installer-image"}]
    sizes = {name: each.size_bytes for name, each in last.items()}
    if not systems or any(target.name not in sizes and target.kind != "provider-image" for target in targets):
        return None
    shared, usual = min(systems), sorted(systems)[len(systems) // 2]
    total = shared if "base-image" in stages else 0
    for target in targets:
        size = sizes.get(target.name, usual)
        total += size if target.kind in {"iso", "boot-tree"} else max(size - shared, 0)
    return total
