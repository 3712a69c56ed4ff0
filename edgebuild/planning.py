"""`inv plan`: what a build would do, and why; nothing is built."""

import json
import os
import sys
from collections.abc import Sequence

from edgebuild import report, secrets, shards
from edgebuild.assess import Assessment, assess, expected, full_difference
from edgebuild.errors import InputError
from edgebuild.plan import ALL_KINDS, Target
from edgebuild.session import Session, prepare


def show(sessions: Sequence[Session], *, as_json: bool, shard: str = "") -> None:
    """Print the plans with what is cached and what would be built."""
    shares = shards.share([session.plan for session in sessions], ALL_KINDS, shard)
    documents = []
    for session, targets in zip(sessions, shares, strict=True):
        assessment = _assess(session, targets)
        likely = expected(session, assessment)
        if as_json:
            documents.append(report.plan_json(session.plan, assessment.reasons, likely))
            continue
        sys.stdout.write(report.plan_text(session.plan, session.environment, assessment.reasons))
        if assessment.to_build:
            sys.stdout.write(f"\nto build: {len(assessment.to_build)} of {len(assessment.verdicts)}; ")
            sys.stdout.write(report.forecast_text(likely) + "\n")
        else:
            sys.stdout.write("\nnothing to build\n" if targets else "\nnothing in this shard\n")
    if as_json:
        whole = documents[0] if len(documents) == 1 else json.dumps([*map(json.loads, documents)], indent=2) + "\n"
        sys.stdout.write(whole)


def _assess(session: Session, targets: Sequence[Target]) -> Assessment:
    """Without the secrets' values the ISO cannot be judged; that is said."""
    missing = []
    for name, reference in session.environment.secrets:
        try:
            if reference:
                secrets.resolve(reference, environ=os.environ, root=session.root, key=f"secrets.{name}")
        except InputError as error:
            missing.append(error.message)
    if missing and any(target.kind == "iso" for target in targets):
        session.say(f"note: whether the ISO is up to date is not known: {'; '.join(missing)}")
    return assess(session, prepare(session, with_secrets=not missing), targets, secrets=not missing)


def explain(sessions: Sequence[Session], name: str) -> None:
    """Print all that has changed for a target since it was built."""
    known = {target.name for session in sessions for target in session.plan.targets}
    if name not in known:
        shown = ", ".join(sorted(known)[:20])
        raise InputError(f"--why {name}: no such target; there are {shown}", hint="./inv plan lists them all")
    for session in sessions:
        targets = [target for target in session.plan.targets if target.kind in {*ALL_KINDS, "base-image"}]
        assessment = _assess(session, targets)
        for verdict in assessment.verdicts:
            if verdict.target.name == name:
                sys.stdout.write("\n".join(full_difference(session, assessment, verdict)) + "\n")


def matrix(sessions: Sequence[Session], count: int) -> None:
    """Print the jobs of a CI run."""
    if not 1 <= count <= 1000:
        raise InputError(f"--shards {count}: expected 1 to 1000 jobs")
    found = shards.matrix([session.plan for session in sessions], ALL_KINDS, count)
    sys.stdout.write(json.dumps(found) + "\n")
