"""Images on their way out: pushed to the registry, or listed in the engine."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from edgebuild import attestations, checking, documents, oci, pushing, registry, report, verify
from edgebuild.engine import docker_client, ensure_engine
from edgebuild.errors import InputError, RegistryError, VerificationError
from edgebuild.localimages import local_images
from edgebuild.plan import Target
from edgebuild.references import lifetime, split_reference
from edgebuild.registry import Pushed
from edgebuild.results import Artifact
from edgebuild.seal import publish
from edgebuild.sending import Settings
from edgebuild.session import Session
from edgebuild.shards import share
from edgebuild.signing import Signer
from edgebuild.view import open_transfer

CANDIDATE = "-candidate"


def push(sessions: Sequence[Session], *, verified: bool = False, shard: str = "") -> None:
    """Push the provider images of these environments, or this shard of them, and note the registry's digests.

    `verified`, which the configuration may ask for too: the tags move only to what passed verify and boot.
    """
    parts = share([session.plan for session in sessions], ["provider-image"], shard)
    for session, targets in zip(sessions, parts, strict=True):
        if targets:
            _push_images(session, targets, verified=verified)


def _push_images(session: Session, chosen: Sequence[Target], *, verified: bool) -> None:
    targets = {target.tags[0]: target for target in chosen}
    ensure_engine(session.root, session.consent)
    verified = verified or session.environment.push.require == "verified"
    signer = documents.signer_of(session)
    if verified:
        pushed = _push_verified(session, list(targets))
    else:
        session.say(f"pushing {report.count(len(targets), 'image')} to {session.environment.image.registry}")
        pushed = _push(session, list(targets))
    artifacts = [_artifact(session, targets[each.reference].name, each) for each in pushed]
    if verified or signer:
        _attach(session, artifacts, signer)
    with session.results.lock(session.say), session.results.staging() as staging:
        passed = verified and verify.is_verified(session)  # another run may have shown a set of its own meanwhile
        publish(session, staging, artifacts, signer=signer)
        if passed:
            verify.remember(session, [])  # the same set, with the registry's digests
    for each in pushed:
        sys.stdout.write(f"{each.reference}@{each.digest}\n")
    if note := lifetime(pushed[0].reference):
        session.say(f"note: {note}")


def _push(session: Session, references: Sequence[str]) -> list[Pushed]:
    settings = session.environment.push
    with open_transfer(references) as transfer:
        client = docker_client(timeout=settings.stall_seconds)
        how = Settings(session.root / "build/.cache/push", settings.jobs, settings.stall_seconds)
        return pushing.push(client, references, how, say=transfer.say, progress=transfer.progress)


def _artifact(session: Session, name: str, pushed: Pushed) -> Artifact:
    known = session.results.artifact(name)
    if known and known.reference == pushed.reference and known.digest == pushed.image:
        return replace(known, registry_digest=pushed.digest)
    return Artifact(
        name=name,
        kind="provider-image",
        reference=pushed.reference,
        digest=pushed.image,
        registry_digest=pushed.digest,
        size_bytes=pushed.size_bytes,
        seconds=round(pushed.seconds, 2),
    )


def _attach(session: Session, artifacts: Sequence[Artifact], signer: Signer | None) -> None:
    """Bill of materials, provenance and signature at each image in the registry, where they are not yet."""
    with tempfile.TemporaryDirectory(prefix="edgebuild-") as folder:
        public_key = Path(folder) / "public.pem" if signer else None
        if signer and public_key:
            public_key.write_text(signer.public_key(), encoding="ascii")
        attached = 0
        for each in artifacts:
            reference, digest = str(each.reference), str(each.registry_digest)
            found = documents.attachments(session.results.current, each.name, reference, digest, signer)
            remote = oci.Registry(split_reference(reference)[0])
            if found is None:
                session.say(f"note: {reference} was not built here: nothing is attached to it")
            elif attestations.check_attached(remote, reference, digest, public_key):
                attestations.attach_all(remote, reference, digest, found, signer)
                attached += 1
    what = "bill of materials, provenance and signature" if signer else "bill of materials and provenance"
    session.say(f"{what} attached to {attached} of {report.count(len(artifacts), 'image')}")


def _push_verified(session: Session, references: Sequence[str]) -> list[Pushed]:
    """Push under candidate tags what has passed; then let the final tags lead to the same digests."""
    images = _passed(session, references)
    session.say(f"pushing {report.count(len(references), 'candidate')} to {session.environment.image.registry}")
    client = docker_client()
    candidates = {f"{reference}{CANDIDATE}": reference for reference in references}
    try:
        for candidate, reference in candidates.items():
            name, _, tag = candidate.rpartition(":")
            client.api.tag(images[reference], name, tag)
        pushed = _push(session, list(candidates))
    finally:
        for candidate in candidates:
            if registry.has_image(client, candidate):
                client.api.remove_image(candidate, noprune=True)
        client.close()
    session.say("every candidate has its digest in the registry; moving the tags")
    final = [replace(each, reference=candidates[each.reference]) for each in pushed]
    for each in final:
        _move_tag(each)
    return final


def _passed(session: Session, references: Sequence[str]) -> Mapping[str, str]:
    """Reference to digest of each image of the set that passed verify and boot; what has not yet does so now."""
    artifacts = session.results.artifacts()
    if not verify.is_verified(session):
        checking.verify(session, registry=False)
    checking.boot(session, "both", "cd")
    if session.results.artifacts() != artifacts:
        raise VerificationError("another run has changed the results meanwhile", hint="push again")
    images = {each.reference: each.digest for each in artifacts}
    if missing := [reference for reference in references if reference not in images]:
        raise InputError(
            "not built yet: " + ", ".join(missing), hint=f"./inv build-all-images --env {session.plan.environment}"
        )
    return {reference: images[reference] for reference in references}


def _move_tag(image: Pushed) -> None:
    """By the same manifest's bytes, so that the digest stays: buildx may wrap it into an index of another digest."""
    host, repository, tag = split_reference(image.reference)
    remote = oci.Registry(host)
    remote.retag(repository, image.digest, tag)
    found = remote.manifest(repository, tag)[0]
    if found != image.digest:
        raise RegistryError(f"{image.reference}: the tag leads to {found}, and was moved to {image.digest}")


def images(session: Session) -> None:
    """List the environment's images in the engine."""
    ensure_engine(session.root, session.consent)
    tags = [tag for target in session.plan.targets for tag in target.tags if target.kind != "boot-tree"]
    found = local_images(docker_client(), tags)
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
