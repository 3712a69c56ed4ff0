"""An index whose registry holds only some of its platforms: kept as a blob, and led from it to a platform's image.

A registry may refuse an index whose other platforms it lacks (docker-registry 2.8 does). A lock names the index, so
its bytes stay provable: stored under its digest, they name the image of a platform by digest.
"""

from collections.abc import Sequence

from edgebuild.errors import InputError
from edgebuild.imagetree import ImageTree, Manifest, image_tree
from edgebuild.oci import INDEX, MANIFEST, Registry, describe
from edgebuild.pulls import Pull
from edgebuild.references import split_reference
from edgebuild.referrers import EMPTY, EMPTY_BYTES, written
from edgebuild.report import count
from edgebuild.transport import NotThere, Patience

PATIENCE = Patience(connect_seconds=5.0, read_seconds=15.0, attempts=2)  # the person waits to begin
KEPT = "application/vnd.edgebuild.kept-index.v1"  # no index to a registry: it would look for the other platforms


def keep_index(registry: Registry, repository: str, tree: ImageTree) -> None:
    """Store the index of `tree` as a blob, held by a small manifest of its own, so that no clean-up takes it."""
    root = tree.root
    for blob in (root.data, EMPTY_BYTES):
        registry.put_blob(repository, blob)
    manifest = written(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": KEPT,
            "config": describe(EMPTY, EMPTY_BYTES),
            "layers": [describe(KEPT, root.data)],
        }
    )
    registry.put_manifest(repository, f"index-{root.digest[7:]}", manifest, MANIFEST)


def platform_images(
    registry: Registry, repository: str, digest: str, platforms: Sequence[str], name: str
) -> ImageTree:
    """The image of this digest, also where its index is only kept as a blob. Raises NotThere, VerificationError."""

    def read(wanted: str) -> Manifest:
        try:
            return Manifest(*registry.manifest(repository, wanted))
        except NotThere:
            if wanted != digest:
                raise
        data = b"".join(registry.blob(repository, wanted))
        return Manifest(wanted, INDEX, data)

    return image_tree(read, digest, platforms, name)


def settle(pulls: Sequence[Pull], name: str) -> dict[str, str]:
    """Upstream reference to the digest by which its mirror serves the platform's image: the index's own, or else
    that of the image which the index names.

    Raises InputError that names every image the mirrors lack, RegistryError when they cannot be asked.
    """
    registries: dict[str, Registry] = {}
    found, missing = {}, []
    for pull in pulls:
        host, repository, _ = split_reference(pull.asked)
        registry = registries.setdefault(host, Registry(host, patience=PATIENCE))
        try:
            if registry.exists(repository, pull.digest):
                found[pull.source] = pull.digest
                continue
            tree = platform_images(registry, repository, pull.digest, pull.platforms, pull.source)
            [image] = tree.images
            found[pull.source] = image.digest
        except NotThere:
            missing.append(f"{pull.source}@{pull.digest[:19]}: is not in the mirror, at {pull.asked}")
    if missing:
        raise InputError(
            f"offline: {count(len(missing), 'image')} not in the mirror:"
            + "".join(f"\n  {each}" for each in missing),
            hint=f"where there is internet: ./inv mirror.export --env {name} --to FOLDER, then ./inv mirror.import",
        )
    return found
