"""A build of environments as data: what is asked for, what came of it, and how that is told."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from edgebuild import render, report
from edgebuild.assess import Assessment, Verdict
from edgebuild.bootstrap import recorded_digest
from edgebuild.errors import BuildError, EdgebuildError
from edgebuild.plan import Kind, Target
from edgebuild.results import Artifact
from edgebuild.session import Prepared, Session
from edgebuild.signing import Signer


@dataclass(frozen=True)
class Options:
    """How to build. `only` is one target's name; `shard` is a part of all, such as 1/3."""

    again: bool = False
    only: str = ""
    fail_fast: bool = False
    jobs: int = 0
    shard: str = ""


@dataclass
class Build:
    """One environment in a build of several: first what is asked for, then what came of it."""

    session: Session
    kinds: Sequence[Kind]
    prepared: Prepared
    targets: Sequence[Target]
    signer: Signer | None
    options: Options
    assessment: Assessment = field(default_factory=lambda: Assessment(()))
    artifacts: list[Artifact] = field(default_factory=list)
    failed: dict[str, EdgebuildError] = field(default_factory=dict)
    searched: str = ""

    @property
    def name(self) -> str:
        return self.session.plan.environment

    @property
    def iso(self) -> Verdict | None:
        return next((each for each in self.assessment.verdicts if each.target.kind == "iso"), None)

    @property
    def makes_iso(self) -> bool:
        return self.iso is not None and bool(self.iso.reasons)

    @property
    def images(self) -> list[Target]:
        """Those to build."""
        return [each.target for each in self.assessment.to_build if each.target.kind != "iso"]

    @property
    def makes_images(self) -> bool:
        """Also where no engine has told yet whether they are there."""
        return bool(self.images) or not self.assessment.engine_answers or self.lacks_base

    @property
    def lacks_base(self) -> bool:
        """Whether the base that is made on this machine is not there, or nothing tells what it is."""
        environment = self.session.environment
        folder = self.session.root / render.bootstrap_folder(environment)
        return bool(environment.os.bootstrap) and not recorded_digest(folder)


def show(build: Build, *, alone: bool) -> None:
    """What there is now, on standard output."""
    session = build.session
    asked = {target.name for target in build.targets}
    there = [each for each in session.results.readable_artifacts() if each.name in asked - build.failed.keys()]
    made = {each.name for each in build.artifacts}
    rows = [("artifact", "size", "", "where")]
    rows += [
        (
            each.name,
            report.size(each.size_bytes),
            "built" if each.name in made else "cached",
            each.path or str(each.reference),
        )
        for each in there
    ]
    folder = f"build/{build.name}"
    sys.stdout.write("\n" + report.table(rows))
    if build.iso:
        sys.stdout.write(f"\nchecksum:  {session.plan.iso.path}.sha256\n")
    if session.environment.kubernetes.payload == "none" and "provider-image" in build.kinds:
        sys.stdout.write(f"note:      {report.NO_PAYLOAD}\n")
    if build.searched:
        sys.stdout.write(f"secrets:   {build.searched}\n")
    sys.stdout.write(f"artifacts: {folder}/artifacts.json\n")
    if "provider-image" in build.kinds:
        sys.stdout.write(f"profile:   {folder}/cluster-profile.yaml\n")
        if alone:
            sys.stdout.write(f"\n{render.render_profile(session.environment)}")


def table(builds: Sequence[Build]) -> str:
    """A line for each environment."""
    rows = [("environment", "built", "cached", "failed", "results")]
    for each in builds:
        cached = len(each.targets) - len(each.artifacts) - len(each.failed)
        rows.append(
            (each.name, str(len(each.artifacts)), str(max(cached, 0)), str(len(each.failed)), f"build/{each.name}")
        )
    return report.table(rows)


def raise_failures(builds: Sequence[Build]) -> None:
    """Raise the one error there is, or one that names all; return when there is none."""
    failed = [(each, name, error) for each in builds for name, error in each.failed.items()]
    if not failed:
        return
    if len({id(error) for _, _, error in failed}) == 1:
        raise failed[0][2]
    built = sum(len(each.artifacts) for each in builds)
    lines = [f"{each.name}: {name}: {error.message}" for each, name, error in failed]
    raise BuildError(
        f"{len(failed)} not built, {built} built:\n  " + "\n  ".join(lines),
        hint="mend what is named and build again: only what failed is built",
    )
