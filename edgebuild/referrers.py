"""What is attached to images in a registry: OCI 1.1 referrers, also where the registry has no API for them."""

import json
from collections.abc import Mapping

from edgebuild.errors import RegistryError
from edgebuild.oci import INDEX, MANIFEST, Document, Registry, describe, descriptors, digest_of, document
from edgebuild.transport import NotThere

EMPTY = "application/vnd.oci.empty.v1+json"
EMPTY_BYTES = b"{}"
ROUNDS = 5  # another client may write the same list in between


def attach(
    registry: Registry,
    repository: str,
    subject_digest: str,
    artifact_type: str,
    media_type: str,
    data: bytes,
    annotations: Mapping[str, str] | None = None,
    *,
    layer_annotations: Mapping[str, str] | None = None,
) -> str:
    """Store `data` as a referrer of the manifest of this digest; returns the referrer's digest.

    `annotations` are the manifest's, `layer_annotations` those of its one layer, the data. The same once more changes
    nothing. Raises RegistryError.
    """
    _, subject_type, subject = registry.manifest(repository, subject_digest)
    for blob in (data, EMPTY_BYTES):
        registry.put_blob(repository, blob)
    noted = {"annotations": dict(annotations)} if annotations else {}
    layer = describe(media_type, data)
    if layer_annotations:
        layer["annotations"] = dict(layer_annotations)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": artifact_type,
        "config": describe(EMPTY, EMPTY_BYTES),
        "layers": [layer],
        "subject": describe(subject_type, subject),
        **noted,
    }
    content = written(manifest)
    digest, listed = registry.put(repository, digest_of(content), content, MANIFEST)
    if not listed:
        entry = {**describe(MANIFEST, content), "artifactType": artifact_type, **noted}
        _list_by_tag(registry, repository, subject_digest, entry)
    return digest


def referrers(registry: Registry, repository: str, digest: str, artifact_type: str = "") -> list[Document]:
    """Descriptors of what is attached to the manifest of this digest, of this type when one is given."""
    try:
        pages = list(registry.pages(repository, f"referrers/{digest}"))
        found = [each for page in pages for each in descriptors(page, "manifests")]
    except NotThere:
        found = _listed(registry, repository, _tag(digest))
    return [each for each in found if not artifact_type or each.get("artifactType") == artifact_type]


def _list_by_tag(registry: Registry, repository: str, subject_digest: str, entry: Document) -> None:
    """Add to the list that the specification keeps under a tag where the registry has no referrers API."""
    tag = _tag(subject_digest)
    for _ in range(ROUNDS):
        listed = _listed(registry, repository, tag)
        if entry in listed:
            return
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*listed, entry]}
        registry.put_manifest(repository, tag, written(index), INDEX)
    raise RegistryError(
        f"{registry.host}/{repository}:{tag}: the registry does not keep the list of what is attached"
    )


def _listed(registry: Registry, repository: str, tag: str) -> list[Document]:
    try:
        _, _, data = registry.manifest(repository, tag)
    except NotThere:
        return []
    return descriptors(document(f"{registry.host}/{repository}:{tag}", data), "manifests")


def _tag(digest: str) -> str:
    return digest.replace(":", "-")


def written(manifest: Document) -> bytes:
    """A manifest as bytes, the same for the same."""
    return json.dumps(manifest, separators=(",", ":"), sort_keys=True).encode()
