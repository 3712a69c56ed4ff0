"""Images on their way out: pushed to the registry, or listed in the engine."""

import sys

from edgebuild import registry, report
from edgebuild.engine import docker_client, ensure_engine
from edgebuild.errors import InputError
from edgebuild.results import Artifact
from edgebuild.seal import publish
from edgebuild.session import Session
from edgebuild.view import open_transfer


def push_images(session: Session) -> None:
    """Push every provider image of the plan and note the registry's digests."""
    references = [target.tags[0] for target in session.plan.of_kind("provider-image")]
    ensure_engine(session.root, session.consent)
    session.say(f"pushing {len(references)} images to {session.environment.image.registry}")
    with open_transfer(references) as transfer:
        pushed = registry.push(
            docker_client(timeout=session.environment.push.stall_seconds),
            references,
            jobs=session.environment.push.jobs,
            say=transfer.say,
            progress=transfer.progress,
        )
    targets = {target.tags[0]: target for target in session.plan.of_kind("provider-image")}
    artifacts = [
        Artifact(
            name=targets[each.reference].name,
            kind="provider-image",
            reference=each.reference,
            digest=each.digest,
            size_bytes=each.size_bytes,
            seconds=round(each.seconds, 2),
        )
        for each in pushed
    ]
    with session.results.lock(session.say), session.results.staging() as staging:
        publish(session, staging, artifacts)
    for each in pushed:
        sys.stdout.write(f"{each.reference}@{each.digest}\n")
    if note := registry.lifetime(references[0]):
        session.say(f"note: {note}")


def images(session: Session) -> None:
    """List the environment's images in the engine."""
    ensure_engine(session.root, session.consent)
    tags = [tag for target in session.plan.targets for tag in target.tags if target.kind != "boot-tree"]
    found = registry.local_images(docker_client(), tags)
    if not found:
        raise InputError(
            "the engine has no image of this environment", hint="./inv build-all-images with the same --env"
        )
    rows = [("image", "id", "age", "size", "shared")]
    rows += [
        (
            each.reference,
            each.id,
            report.age(each.age_seconds),
            report.size(each.size_bytes),
            report.size(each.shared_bytes),
        )
        for each in found
    ]
    sys.stdout.write(report.table(rows))
