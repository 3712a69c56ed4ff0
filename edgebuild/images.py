"""Images of environments, by BuildKit: what is asked of it, and what came of each target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgebuild.bake import BakeRequest, BakeResult, DiskFull, Told, bake, unheard
from edgebuild.dispatch import Dispatch, Spot, bring, open_dispatch
from edgebuild.engine import Engine
from edgebuild.errors import BuildError, EdgebuildError, RegistryError
from edgebuild.keys import key_of
from edgebuild.madehere import note_made
from edgebuild.offline import prove
from edgebuild.plan import Target
from edgebuild.results import Artifact
from edgebuild.run import run
from edgebuild.session import Prepared, Session
from edgebuild.stages import Stage, chain, parse_stages
from edgebuild.view import open_view

TARGETS_PER_PROCESSOR = 8  # most of them copy, or wait for a registry


@dataclass(frozen=True)
class Work:
    """What is to be built of one environment; its bake file stands in `staging`/inputs.

    `dispatch` is where, when that has been looked at before. `written` is told target and digest of each image that
    this engine has, while others are still built.
    """

    session: Session
    prepared: Prepared
    staging: Path
    targets: Sequence[Target]
    engine: Engine
    dispatch: Dispatch | None = None
    written: Told = unheard


@dataclass(frozen=True)
class Built:
    """What came of one Work. `upstream` has the digests of the images that were built on, `failed` target to why.

    `stage_seconds` are those of the stages that really ran.
    """

    artifacts: list[Artifact]
    upstream: Mapping[str, str]
    failed: Mapping[str, EdgebuildError] = field(default_factory=dict)
    stage_seconds: Mapping[str, float] = field(default_factory=dict)


def build_images(
    works: Sequence[Work], *, fresh: tuple[str, ...] = (), jobs: int = 0, fail_fast: bool = False
) -> list[Built]:
    """Build the targets of each Work; `fresh` stages are built whatever is cached.

    At most `jobs` targets at a time; 0: as limits.jobs says, and the engine's memory and processors. A target that
    fails does not stop the others, but for `fail_fast`. Raises ToolError, and for a full disk BuildError.
    """
    found = []
    for work in works:
        built = _build(work, fresh, jobs, fail_fast) if work.targets else Built([], {})
        if fail_fast and built.failed:
            raise next(iter(built.failed.values()))
        found.append(built)
    return found


def _build(work: Work, fresh: tuple[str, ...], jobs: int, fail_fast: bool) -> Built:
    limits = work.session.environment.limits
    stages = parse_stages(work.prepared.texts["Dockerfile"])
    dispatch = work.dispatch or open_dispatch(work.session)
    most = at_a_time(work.engine, jobs or limits.jobs, limits.target_memory)
    together = dispatch.sizes(len(work.targets), most)
    outcomes = dispatch.build(
        groups([target.name for target in work.targets], together),
        lambda spot, names: build_group(work, stages, names, fresh, fail_fast, spot),
        base=shared_base(stages, work.targets),
        stop_at=lambda outcome: fail_fast and bool(outcome[1]),
    )
    results = [result for result, _ in outcomes if result]
    failed = {name: error for _, wrong in outcomes for name, error in wrong.items()}
    digests = {name: digest for result in results for name, digest in result.digests.items()}
    return Built(
        _artifacts(work, digests, {name: time for result in results for name, time in result.seconds.items()}),
        {reference: digest for result in results for reference, digest in result.upstream.items()},
        failed,
        {stage: time for result in results for stage, time in result.stages.items()},
    )


def groups(names: Sequence[str], together: int) -> list[tuple[str, ...]]:
    """The targets in their order, cut into groups of at most so many: a driver drops what one call asks beyond."""
    return [tuple(names[start : start + together]) for start in range(0, len(names), together)]


def at_a_time(engine: Engine, jobs: int, target_memory: int) -> int:
    """How many targets the engine builds at once: so many as asked, or as processors allow, and memory has room for.

    `target_memory` is what one of them may need, in MB.
    """
    wanted = jobs or TARGETS_PER_PROCESSOR * engine.processors
    room = engine.memory // (target_memory * 10**6) if target_memory and engine.memory else wanted
    return max(1, min(wanted, room))


def shared_base(stages: Mapping[str, Stage], targets: Sequence[Target]) -> str:
    """The key of what all of these stand on, as it is written: who has built it before is warm, if only in part."""
    chains = [chain(stages, target.name) for target in targets]
    common = [name for name in chains[0] if all(name in each for each in chains)]
    return key_of({name: list(stages[name].instructions) for name in common})


def build_group(
    work: Work,
    stages: Mapping[str, Stage],
    names: tuple[str, ...],
    fresh: tuple[str, ...],
    fail_fast: bool,
    spot: Spot,
) -> tuple[BakeResult | None, dict[str, EdgebuildError]]:
    """Build these in one call. What stands on a stage that failed is left out, and the rest asked for again.

    BuildKit gives up all that it has at work when one target fails; what is done already comes from its cache.
    """
    failed: dict[str, EdgebuildError] = {}
    while names:
        untagged = dict.fromkeys(names, "")  # they get their names with the set that they belong to
        try:
            result = bake_targets(
                work.session,
                work.prepared,
                work.staging,
                names,
                fresh=fresh,
                tags=untagged,
                spot=spot,
                written=work.written,
            )
            return result, failed
        except (BuildError, RegistryError) as error:
            if isinstance(error, DiskFull):
                raise
            hit = [name for name in names if not error.stage or error.stage in chain(stages, name)] or list(names)
            failed |= dict.fromkeys(hit, error)
            names = tuple(name for name in names if name not in hit)
            if fail_fast:
                break
            if names:
                work.session.say(f"{', '.join(hit)}: not built; going on with the others")
    return None, failed


def _artifacts(work: Work, digests: Mapping[str, str], seconds: Mapping[str, float]) -> list[Artifact]:
    # By digest: another clone of the repository may give the tag to an image of its own at any time.
    sizes = _image_sizes(list(digests.values())) if digests else {}
    return [
        Artifact(
            name=target.name,
            kind=target.kind,
            reference=target.tags[0],
            digest=digests[target.name],
            size_bytes=sizes[digests[target.name]],
            seconds=round(seconds.get(target.name, 0.0), 2),
        )
        for target in work.targets
        if target.name in digests
    ]


def bake_targets(
    session: Session,
    prepared: Prepared,
    staging: Path,
    names: tuple[str, ...],
    *,
    fresh: tuple[str, ...] = (),
    tags: Mapping[str, str] | None = None,
    spot: Spot | None = None,
    written: Told = unheard,
) -> BakeResult:
    """One call of bake, with a log of its own. `tags` gives targets other names than the bake file does.

    `written` is told target and digest of each image that this engine has, while others are still built.
    """
    spot = spot or Spot(buildx=session.environment.builder)
    kinds = {target.name: target.kind for target in session.plan.targets if target.name in names}
    log = session.results.new_log(f"build-{spot.name}" if spot.name else "build")
    shown = ", ".join(names) if len(names) < 8 else f"{len(names)} images"
    where = f" on {spot.name}" if spot.name else ""
    session.say(f"building {shown}{where}; log: {log.relative_to(session.root)}")
    environment = {}
    if value := prepared.secret_values.get("luet_auth"):
        environment["EDGEBUILD_SECRET_LUET_AUTH"] = value
    with open_view(names, alone=not spot.name) as view:
        result = bake(
            BakeRequest(
                file=staging / "inputs/docker-bake.json",
                targets=names,
                root=session.root,
                log=log,
                metadata=staging / f".metadata-{log.stem}.json",
                docker=spot.docker,
                builder=spot.buildx,
                settings=spot.settings(session, kinds),
                fresh=fresh,
                tags=tags or {},
                env=environment,
            ),
            view,
            written=unheard if spot.builder else written,  # others have them in a store of their own
        )
    if spot.keeps:
        result = bring(spot, result)
    note_made(session.root, session.plan.environment, result.digests.values())
    if session.environment.offline:
        prove(result.asked, session.environment.registries.mirrors)
    return result


def _image_sizes(digests: Sequence[str]) -> dict[str, int]:
    output = run(["docker", "image", "inspect", "--format", "{{.Size}}", *digests]).stdout
    return dict(zip(digests, map(int, output.split()), strict=True))
