"""Where images are built: the engine here, or the builders of an environment, which bring what they built here."""

import re
import subprocess
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from edgebuild import builders, preflight
from edgebuild.bake import BakeResult
from edgebuild.builders import Builder, cache_sets
from edgebuild.builderset import DockerBuilder
from edgebuild.errors import BuildError, ToolError
from edgebuild.placement import Group, Place
from edgebuild.pool import BuilderLost, Pool, none_left
from edgebuild.report import count
from edgebuild.run import process, run
from edgebuild.session import Session

Result = TypeVar("Result")
Names = tuple[str, ...]


@dataclass(frozen=True)
class Spot:
    """One place to build: how bake is called there. `caches`: it can write what it has built to a registry.

    `builder` is one of several; without it this is the engine here, or the one buildx builder of the environment.
    """

    name: str = ""
    docker: tuple[str, ...] = builders.DOCKER
    buildx: str = ""
    caches: bool = False
    builder: Builder | None = None

    @property
    def keeps(self) -> bool:
        """Whether what it has built stays there, in an engine's own store, until it is brought here."""
        return bool(self.builder and isinstance(self.builder.settings, DockerBuilder) and not self.builder.is_here)

    def settings(self, session: Session, kinds: Mapping[str, str]) -> list[str]:
        """What bake's --set is given here for these targets: name to kind."""
        registry = session.environment.cache.registry
        if not registry:
            return []
        plan = session.plan
        return cache_sets(registry, plan.environment, kinds, platform=plan.platform, exports=self.caches)


@dataclass
class Dispatch:
    """The places of one environment that can be used now. `lost` are the others, by name, and why."""

    session: Session
    spots: Mapping[str, Spot]
    places: Sequence[Place] = ()
    lost: dict[str, str] = field(default_factory=dict)

    def sizes(self, targets: int, together: int) -> int:
        """How many targets one call asks for: so few that every builder has work, and at most `together`."""
        at_once = sum(each.jobs for each in self.places if each.name not in self.lost)
        return min(together, -(-targets // at_once)) if at_once else together

    def build(
        self,
        groups: Sequence[Names],
        build: Callable[[Spot, Names], Result],
        *,
        base: str,
        stop_at: Callable[[Result], bool],
    ) -> list[Result]:
        """Build all groups; `base` is the key of what they stand on. `stop_at` says that nothing more is to begin.

        Raises ToolError when no builder is left, and what `build` raises.
        """
        if not self.places:
            results = list[Result]()
            for names in groups:
                results.append(build(self.spots[""], names))
                if stop_at(results[-1]):
                    break
            return results

        def on(name: str, group: Group) -> Result:
            try:
                return build(self.spots[name], group.targets)
            except BuilderLost:
                raise
            except ToolError as error:
                raise BuilderLost(error.message) from error

        asked = [Group(names, self.session.plan.platform, base) for names in groups]
        pool = Pool(self.places, on, self.session.say, self.lost)
        done = pool.work_through(asked, stop_at=stop_at)
        built = defaultdict[str, int](int)
        for group, name, _ in done:
            built[name] += len(group.targets)
        self.session.say(
            "work by builder: " + ", ".join(f"{name} {number}" for name, number in sorted(built.items()))
        )
        return [result for _, _, result in done]


def open_dispatch(session: Session) -> Dispatch:
    """Look which builders can be used, and say so of those that cannot. Raises ToolError when none is left."""
    environment = session.environment
    if not environment.builders:
        spot = Spot(buildx=environment.builder, caches=_caches_here(session))
        return Dispatch(session, {"": spot})
    asked = preflight.open_builders(session)
    session.say(f"asking {count(len(asked), 'builder')}: {', '.join(each.name for each in asked)}")
    lost = {}
    for check in preflight.examine(session, asked):
        if check.status == "error":
            lost[check.name] = f"{check.detail} -> {check.remedy}"
            session.say(f"builder {check.name} is left out: {lost[check.name]}")
    spots = {each.name: _spot(session, each) for each in asked if each.name not in lost}
    places = [Place(each.name, frozenset(each.settings.platforms), each.settings.jobs) for each in asked]
    platform = session.plan.platform
    if not any(platform in each.platforms and each.name not in lost for each in places):
        raise none_left(platform, places, lost)
    return Dispatch(session, spots, places, lost)


def _spot(session: Session, builder: Builder) -> Spot:
    docker = isinstance(builder.settings, DockerBuilder)
    caches = not docker or (bool(session.environment.cache.registry) and writes_caches(builder.docker))
    if session.environment.cache.registry and not caches:
        session.say(f"note: builder {builder.name} reads the cache and does not write it: {NO_STORE}")
    return Spot(builder.name, builder.docker, "".join(builder.chosen), caches, builder)


NO_STORE = "its engine has no containerd image store"


def _caches_here(session: Session) -> bool:
    """The same for a build without `builders`."""
    if not session.environment.cache.registry:
        return False
    name = session.environment.builder
    if name and not re.search(r"^Driver:\s+docker$", run(["docker", "buildx", "inspect", name]).stdout, re.MULTILINE):
        return True
    if writes_caches(builders.DOCKER):
        return True
    session.say(f"note: the cache is read and not written: {NO_STORE.replace('its', 'the')}")
    return False


def writes_caches(docker: Sequence[str]) -> bool:
    """Whether an engine's own BuildKit can write caches to a registry: only with the containerd image store."""
    told = run([*docker, "info", "--format", "{{json .DriverStatus}}"], check=False, timeout=60).stdout
    return "io.containerd.snapshotter" in told


def bring(spot: Spot, result: BakeResult) -> BakeResult:
    """Bring what was built on another engine into the one here; the digests are those that the images have here.

    Together, so that what they share travels once. Raises BuilderLost when the other engine goes away.
    """
    _carry(spot, sorted(set(result.stored.values())))
    here = {}
    for name, digest in result.digests.items():
        there = run(["docker", "image", "inspect", "--format", "{{.Id}}", digest], check=False).returncode == 0
        # Another kind of store has another digest for it, which only one image at a time tells.
        here[name] = digest if there else _carry(spot, [result.stored[name]])[-1]
    return replace(result, digests=here)


def _carry(spot: Spot, digests: Sequence[str]) -> list[str]:
    """One `docker save` into one `docker load`; returns the ids that load tells."""
    with (
        process(
            [*spot.docker, "image", "save", *digests],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as save,
        process(
            ["docker", "image", "load"],
            stdin=save.stdout,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as load,
    ):
        save.stdout.close()  # type: ignore[union-attr]  # load's alone now: save ends when load does
        out, problem = load.communicate()
        trouble = save.stderr.read().decode(errors="replace").strip()  # type: ignore[union-attr]
        if save.wait():
            raise BuilderLost(
                f"what it has built cannot be brought here: {trouble.splitlines()[-1] if trouble else 'it went away'}"
            )
        if load.returncode:
            raise BuildError(
                f"the engine here does not take what builder {spot.name} built: {problem.strip()}",
                hint="docker system df; ./inv doctor",
            )
    return [line.partition(": ")[2].strip() for line in out.splitlines() if line.startswith("Loaded image")]
