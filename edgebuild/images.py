"""Images of environments, by BuildKit: what is asked of it, and what came of each target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgebuild.bake import BakeRequest, BakeResult, bake
from edgebuild.errors import EdgebuildError
from edgebuild.plan import Target
from edgebuild.results import Artifact
from edgebuild.run import run
from edgebuild.session import Prepared, Session
from edgebuild.view import open_view


@dataclass(frozen=True)
class Work:
    """What is to be built of one environment; its bake file stands in `staging`/inputs."""

    session: Session
    prepared: Prepared
    staging: Path
    targets: Sequence[Target]


@dataclass(frozen=True)
class Built:
    """What came of one Work. `upstream` has the digests of the images that were built on, `failed` target to why.

    `stage_seconds` are those of the stages that really ran.
    """

    artifacts: list[Artifact]
    upstream: Mapping[str, str]
    failed: Mapping[str, EdgebuildError] = field(default_factory=dict)
    stage_seconds: Mapping[str, float] = field(default_factory=dict)


def build_images(works: Sequence[Work], *, fresh: tuple[str, ...] = ()) -> list[Built]:
    """Build the targets of each Work; `fresh` stages are built whatever is cached. Raises for what fails."""
    return [_build(work, fresh) if work.targets else Built([], {}) for work in works]


def _build(work: Work, fresh: tuple[str, ...]) -> Built:
    names = tuple(target.name for target in work.targets)
    untagged = dict.fromkeys(names, "")  # they get their names with the set that they belong to
    result = bake_targets(work.session, work.prepared, work.staging, names, fresh=fresh, tags=untagged)
    # By digest: another clone of the repository may give the tag to an image of its own at any time.
    sizes = _image_sizes([result.digests[name] for name in names])
    artifacts = [
        Artifact(
            name=target.name,
            kind=target.kind,
            reference=target.tags[0],
            digest=result.digests[target.name],
            size_bytes=sizes[result.digests[target.name]],
            seconds=round(result.seconds.get(target.name, 0.0), 2),
        )
        for target in work.targets
    ]
    return Built(artifacts, result.upstream)


def bake_targets(
    session: Session,
    prepared: Prepared,
    staging: Path,
    names: tuple[str, ...],
    *,
    fresh: tuple[str, ...] = (),
    tags: Mapping[str, str] | None = None,
) -> BakeResult:
    """One call of bake, with a log of its own. `tags` gives targets other names than the bake file does."""
    log = session.results.new_log("build")
    shown = ", ".join(names) if len(names) < 8 else f"{len(names)} images"
    session.say(f"building {shown}; log: {log.relative_to(session.root)}")
    environment = {}
    if value := prepared.secret_values.get("luet_auth"):
        environment["EDGEBUILD_SECRET_LUET_AUTH"] = value
    with open_view(names) as view:
        return bake(
            BakeRequest(
                file=staging / "inputs/docker-bake.json",
                targets=names,
                root=session.root,
                log=log,
                metadata=staging / ".metadata.json",
                builder=session.environment.builder,
                fresh=fresh,
                tags=tags or {},
                env=environment,
            ),
            view,
        )


def _image_sizes(digests: Sequence[str]) -> dict[str, int]:
    output = run(["docker", "image", "inspect", "--format", "{{.Size}}", *digests]).stdout
    return dict(zip(digests, map(int, output.split()), strict=True))
