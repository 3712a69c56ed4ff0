"""Which builder gets which work: by platform, by what it has built before, and by what it may do at once. Pure."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """A builder as placement sees it: `jobs` groups at a time."""

    name: str
    platforms: frozenset[str]
    jobs: int


@dataclass(frozen=True)
class Group:
    """Targets that are built in one call. `base` is the content key of what they stand on: who has it is warm."""

    targets: tuple[str, ...]
    platform: str
    base: str


def ranked(places: Iterable[Place], group: Group) -> list[Place]:
    """Those of the group's platform, the warmest first.

    Rendezvous hashing: every run and every machine puts the same base first on the same builder, and a builder that
    comes or goes moves only the bases that are its own.
    """

    def weight(place: Place) -> bytes:
        return hashlib.sha256(f"{group.base}\0{place.name}".encode()).digest()

    return sorted((each for each in places if group.platform in each.platforms), key=weight, reverse=True)


def place(waiting: Sequence[Group], places: Sequence[Place], busy: Mapping[str, int]) -> tuple[Group, Place] | None:
    """The next group to begin, and where: the warmest builder that has room. None when nobody has.

    `busy` is how many groups each builder has at work.
    """
    for group in waiting:
        for each in ranked(places, group):
            if busy.get(each.name, 0) < each.jobs:
                return group, each
    return None
