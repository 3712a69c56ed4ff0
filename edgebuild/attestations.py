"""Bill of materials, provenance and signature at an image in the registry.

They stand there twice, as the same bytes: as OCI referrers, and under the tags sha256-….sig and sha256-….att, where
cosign 2 looks.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgebuild import provenance, signing
from edgebuild.errors import VerificationError
from edgebuild.oci import DIGEST, MANIFEST, Document, OtherBytes, Registry, describe, descriptors, digest_of, document
from edgebuild.provenance import Attachments
from edgebuild.references import split_reference
from edgebuild.referrers import attach, referrers, written
from edgebuild.signing import Signer
from edgebuild.transport import NotThere

SBOM = "application/vnd.cyclonedx+json"
ENVELOPE = "application/vnd.dsse.envelope.v1+json"
SIGNATURE = "application/vnd.dev.cosign.artifact.sig.v1+json"
SIGNED = "application/vnd.dev.cosign.simplesigning.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
SIGNATURE_KEY = "dev.cosignproject.cosign/signature"


def attach_all(
    registry: Registry, reference: str, digest: str, attachments: Attachments, signer: Signer | None = None
) -> None:
    """Attach all to the image of this digest, and a signature when there is a signer.

    Attaching the same once more changes nothing, but for the signature of an EC key, which is never the same twice:
    ask check_attached first. Raises RegistryError.
    """
    repository = split_reference(reference)[1]
    attach(registry, repository, digest, SBOM, SBOM, attachments.sbom.encode())
    envelope = attachments.provenance.encode()
    noted = {"predicateType": provenance.PREDICATE}
    attach(registry, repository, digest, ENVELOPE, ENVELOPE, envelope, noted)
    if not signer:
        return
    _add(registry, repository, digest, "att", describe(ENVELOPE, envelope), {SIGNATURE_KEY: "", **noted})
    payload = signed_payload(reference, digest)
    signature = {SIGNATURE_KEY: signer.sign(payload)}
    attach(registry, repository, digest, SIGNATURE, SIGNED, payload, layer_annotations=signature)
    _add(registry, repository, digest, "sig", describe(SIGNED, payload), signature)


def signed_payload(reference: str, digest: str) -> bytes:
    """What an image's signature is of: the format that cosign and containers/image call simple signing."""
    host, repository, _ = split_reference(reference)
    critical = {
        "identity": {"docker-reference": f"{host}/{repository}"},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }
    return json.dumps({"critical": critical, "optional": None}, separators=(",", ":"), sort_keys=True).encode()


def _tag(digest: str, kind: str) -> str:
    return f"{digest.replace(':', '-')}.{kind}"


def _add(
    registry: Registry, repository: str, digest: str, kind: str, layer: Document, annotations: Mapping[str, str]
) -> None:
    """Add a layer, whose blob is there, to what cosign looks for under the tag of this kind; others' layers stay."""
    ours = {**layer, "annotations": dict(annotations)}
    there = _layers(registry, repository, _tag(digest, kind))
    if ours in there:
        return
    layers = [*there, ours]
    rootfs = {"type": "layers", "diff_ids": [each["digest"] for each in layers]}
    config = written({"architecture": "", "os": "", "config": {}, "rootfs": rootfs})
    registry.put_blob(repository, config)
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": describe(CONFIG, config), "layers": layers}
    registry.put_manifest(repository, _tag(digest, kind), written(manifest), MANIFEST)


def _layers(registry: Registry, repository: str, reference: str) -> list[Document]:
    """The layers of the manifest under this tag or digest; nothing when there is none."""
    try:
        _, _, data = registry.manifest(repository, reference)
    except NotThere:
        return []
    return descriptors(document(f"{registry.host}/{repository}:{reference}", data), "layers")


def _attached(registry: Registry, repository: str, digest: str, artifact_type: str) -> Iterator[bytes]:
    """What the referrers of this type hold. Whoever may push can attach: what cannot be read is passed over."""
    for each in referrers(registry, repository, digest, artifact_type):
        with contextlib.suppress(NotThere, OtherBytes):
            if DIGEST.fullmatch(str(each.get("digest"))):
                for layer in _layers(registry, repository, each["digest"]):
                    yield registry.read_blob(repository, layer)


def check_attached(registry: Registry, reference: str, digest: str, public_key: Path | None = None) -> list[str]:
    """What is missing at the image of this digest, one line each; nothing when all is there and fits together.

    With a public key: one signature and one provenance are by its owner and about this digest, and a bill of
    materials is the one that this provenance names. Without: each is there once, and about this digest. What others
    attached beside them does not matter. Raises RegistryError when the registry cannot be asked.
    """
    if public_key:
        signing.check_public_key(public_key)
    repository = split_reference(reference)[1]
    names = {digest, _configuration(registry, repository, digest)}
    bills = {digest_of(data) for data in _attached(registry, repository, digest, SBOM) if _is_bill(data, names)}
    named = [
        statement
        for data in _attached(registry, repository, digest, ENVELOPE)
        if (statement := _statement(data, digest, public_key))
    ]
    problems = []
    if not named:
        problems.append("no provenance" + _by(public_key))
    elif not any(bills & {each.digest for each in statement.byproducts} for statement in named):
        problems.append("no bill of materials that its provenance names")
    if public_key and not _is_signed(registry, repository, digest, public_key):
        problems.append("no signature" + _by(public_key))
    return [f"{reference}@{digest}: the registry has {problem}" for problem in problems]


def _by(public_key: Path | None) -> str:
    return f" by the owner of {public_key.name}" if public_key else ""


def _configuration(registry: Registry, repository: str, digest: str) -> str:
    """The digest of the image's configuration, which the engine calls the image's id; empty for an index."""
    _, _, data = registry.manifest(repository, digest)
    config = document(f"{registry.host}/{repository}@{digest}", data).get("config")
    return str(config.get("digest")) if isinstance(config, dict) else ""


def _is_bill(data: bytes, names: set[str]) -> bool:
    """Whether this is a bill of materials of the image with these digests."""
    try:
        found = json.loads(data)
        hashes = found["metadata"]["component"]["hashes"]
        about = {f"sha256:{each['content']}" for each in hashes}
        return found["bomFormat"] == "CycloneDX" and bool(about & names)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _statement(data: bytes, digest: str, public_key: Path | None) -> provenance.Statement | None:
    """The statement in this envelope, when it is about the image and by the owner of the key."""
    try:
        envelope = provenance.unseal(data)
        statement = provenance.read_statement(envelope.payload)
    except VerificationError:
        return None
    if digest not in {subject.digest for subject in statement.subjects}:
        return None
    if public_key and not any(_fits(envelope.signed, signature, public_key) for _, signature in envelope.signatures):
        return None
    return statement


def _is_signed(registry: Registry, repository: str, digest: str, public_key: Path) -> bool:
    """Whether a signature of the image is by the owner of the key."""
    for layer in _layers(registry, repository, _tag(digest, "sig")):
        with contextlib.suppress(NotThere, OtherBytes, ValueError, KeyError, TypeError, RecursionError):
            payload = registry.read_blob(repository, layer)
            about = json.loads(payload)["critical"]["image"]["docker-manifest-digest"]
            if about == digest and _fits(payload, layer["annotations"][SIGNATURE_KEY], public_key):
                return True
    return False


def _fits(data: bytes, signature: str, public_key: Path) -> bool:
    try:
        signing.verify(data, str(signature), public_key)
    except VerificationError:
        return False
    return True
