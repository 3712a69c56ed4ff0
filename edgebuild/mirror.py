"""Images that environments pull from elsewhere: into a folder, and into a registry of one's own."""

import functools
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from edgebuild.crew import Crew
from edgebuild.errors import EdgebuildError, RegistryError, VerificationError
from edgebuild.imagetree import Descriptor, ImageTree, Manifest, image_tree
from edgebuild.layout import Entry, Layout
from edgebuild.narrowing import keep_index, platform_images
from edgebuild.oci import PATIENCE, Registry, blob_flaw
from edgebuild.pulls import Pull
from edgebuild.references import split_reference
from edgebuild.report import size
from edgebuild.transport import NotThere, Patience
from edgebuild.upload import Read, send_blob

T = TypeVar("T")
U = TypeVar("U")
JOBS = 4
Say = Callable[[str], None]


@dataclass
class Registries:
    """The registries of one run, each with its logins asked for once."""

    patience: Patience = PATIENCE
    known: dict[str, Registry] = field(default_factory=dict)

    def of(self, reference: str) -> tuple[Registry, str, str]:
        """Registry, repository and tag of a reference."""
        host, repository, tag = split_reference(reference)
        return self.known.setdefault(host, Registry(host, patience=self.patience)), repository, tag


@dataclass(frozen=True)
class Found:
    """An image that its registry has: what is pulled, and all that it consists of."""

    pull: Pull
    tree: ImageTree


def look(registries: Registries, pulls: Sequence[Pull]) -> list[Found | EdgebuildError]:
    """Each image as its registry has it now, or why it does not."""

    def one(pull: Pull) -> Found | EdgebuildError:
        try:
            registry, repository, tag = registries.of(pull.asked)

            def read(digest: str) -> Manifest:
                return Manifest(*registry.manifest(repository, digest))

            digest = pull.digest or registry.manifest(repository, tag)[0]
            return Found(pull, image_tree(read, digest, pull.platforms, pull.source))
        except NotThere as error:
            pinned = f"@{pull.digest}" if pull.digest else ""
            hint = f"./inv lock --env {pull.environments[0]} --update" if pinned else "check release and os.version"
            return RegistryError(f"{pull.asked}{pinned}: does not exist: {error.message}", hint=hint)
        except (RegistryError, VerificationError) as error:
            return error

    for pull in pulls:
        registries.of(pull.asked)  # made here: threads only use them
    return side_by_side(one, pulls, JOBS)


def found_all(looked: Iterable[Found | EdgebuildError]) -> list[Found]:
    """All of them. Raises one error that names each that is not there."""
    whole = list(looked)
    return [each for each in whole if isinstance(each, Found)] if not raise_all(whole) else []


def raise_all(results: Iterable[object], what: str = "images") -> bool:
    """Raise the one error among the results, or one that names all; False when there is none."""
    errors = [each for each in results if isinstance(each, EdgebuildError)]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        kind = type(errors[0]) if len({each.exit_code for each in errors}) == 1 else RegistryError
        lines = "".join(f"\n  {each.message}" for each in errors)
        raise kind(f"{len(errors)} {what} failed:{lines}", hint=errors[0].hint)
    return False


def export_images(layout: Layout, registries: Registries, found: Sequence[Found], say: Say, jobs: int = JOBS) -> int:
    """Fetch all images into the folder, each blob once; returns the bytes that were read.

    What is there and whole stays. Raises one error for all that failed; what came is kept.
    """
    _check_room(layout, found)
    origin = {blob: each.pull.asked for each in reversed(found) for blob in each.tree.blobs}

    def fetch(blob: Descriptor) -> int | EdgebuildError:
        registry, repository, _ = registries.of(origin[blob])
        try:
            if layout.has(blob):
                return 0
            return layout.fetch(blob, functools.partial(_from_registry, registry, repository, blob))
        except EdgebuildError as error:
            kind = type(error) if isinstance(error, (RegistryError, VerificationError)) else EdgebuildError
            return kind(f"{origin[blob]}: {error.message}", hint=error.hint)

    fetched = dict(zip(origin, side_by_side(fetch, list(origin), jobs), strict=True))
    entries = []
    for each in found:
        if any(isinstance(fetched[blob], EdgebuildError) for blob in each.tree.blobs):
            say(f"  {each.pull.source}  failed")
            continue
        for manifest in each.tree.manifests:
            layout.keep(manifest)
        entries.append(Entry(each.pull.source, each.tree.root.descriptor, each.pull.platforms))
        say(f"  {each.pull.source}  {size(each.tree.size)}")
    layout.add(entries)
    raise_all(fetched.values(), "blobs")
    return sum(each for each in fetched.values() if isinstance(each, int))


def _check_room(layout: Layout, found: Sequence[Found]) -> None:
    """Raise before anything is fetched when the disk cannot hold what is missing."""
    blobs = {blob for each in found for blob in each.tree.blobs}
    needed = sum(blob.size for blob in blobs if not layout.path(blob.digest).is_file())
    free = shutil.disk_usage(layout.folder).free
    if needed > free:
        raise EdgebuildError(
            f"{layout.folder}: {size(needed)} are still to be fetched, {size(free)} are free",
            hint="make room, or name a folder on another disk",
        )


def _from_registry(registry: Registry, repository: str, blob: Descriptor, offset: int) -> Iterator[bytes]:
    return registry.blob(repository, blob.digest, size=blob.size, start=offset)


@dataclass
class Import:
    """Images on their way into the registry at `to`, host[:port][/namespace]."""

    to: str
    say: Say
    jobs: int = JOBS
    registries: Registries = field(default_factory=Registries)
    sent_bytes: int = 0
    blobs: dict[str, str] = field(default_factory=dict)  # digest to a repository that has it

    def image(self, source: str, tree: ImageTree, read: Callable[[Descriptor], Read]) -> None:
        """Put one image below the mirror; `read` gives a blob's reader. Raises RegistryError."""
        registry, repository, tag = self.registries.of(f"{self.to}/{source}")

        def send(blob: Descriptor) -> int:
            known = self.blobs.get(blob.digest)
            mount = [known] if known and known != repository else []
            sent = send_blob(registry, repository, blob.digest, blob.size, read(blob), mount_from=mount)
            self.blobs[blob.digest] = repository
            return sent.bytes

        before = self.sent_bytes
        self.sent_bytes += sum(side_by_side(send, tree.blobs, self.jobs))
        for manifest in tree.manifests[:-1]:
            registry.put_manifest(repository, manifest.digest, manifest.data, manifest.media_type)
        note = ""
        try:
            self._put_root(registry, repository, tag, tree)
        except RegistryError:
            if tree.whole:
                raise
            # It takes no index without the images of all platforms: the platform's own gets the tag.
            keep_index(registry, repository, tree)
            [image, *_] = tree.images
            registry.put_manifest(repository, tag or "latest", image.data, image.media_type)
            note = f"; by {image.digest[:19]}, the image for its platform out of the index"
        sent = size(self.sent_bytes - before) + " sent" if self.sent_bytes > before else "is there already"
        self.say(f"  {self.to}/{source}  {sent}{note}")

    @staticmethod
    def _put_root(registry: Registry, repository: str, tag: str, tree: ImageTree) -> None:
        root = tree.root
        registry.put_manifest(repository, tag or root.digest, root.data, root.media_type)


def import_folder(layout: Layout, to: Import) -> None:
    """Push every image of the folder that is whole. Raises one error that names those that are not."""
    checked: dict[str, str] = {}
    problems: list[EdgebuildError] = []
    for entry in layout.entries():
        try:
            tree = layout.tree(entry)
            checked |= {blob.digest: layout.flaw(blob) for blob in tree.blobs if blob.digest not in checked}
            if flaws := [f"blob {blob.digest} {checked[blob.digest]}" for blob in tree.blobs if checked[blob.digest]]:
                raise VerificationError(
                    f"{entry.name}: not pushed: {'; '.join(flaws)}",
                    hint="./inv mirror.export --to the same folder fetches what is missing or changed",
                )
            to.image(entry.name, tree, lambda blob: functools.partial(_from_layout, layout, blob))
        except VerificationError as error:
            problems.append(error)
            to.say(f"  {entry.name}  is damaged, and not pushed")
    raise_all(problems)


def _from_layout(layout: Layout, blob: Descriptor, offset: int) -> Iterator[bytes]:
    return layout.pieces(blob.digest, offset)


def import_registry(found: Sequence[Found], to: Import) -> None:
    """Copy images from their registries, blob by blob, with nothing on this machine's disk."""
    for each in found:
        registry, repository, _ = to.registries.of(each.pull.asked)
        read = functools.partial(_reader, registry, repository)
        to.image(each.pull.source, each.tree, read)


def _reader(registry: Registry, repository: str, blob: Descriptor) -> Read:
    return functools.partial(_from_registry, registry, repository, blob)


def check_registry(registries: Registries, at: str, images: Sequence[tuple[str, str, Sequence[str]]]) -> list[str]:
    """Read every blob of these images (upstream reference, digest, platforms) from below `at`; what is wrong."""
    problems: list[str] = []
    checked: dict[str, str] = {}
    for source, digest, platforms in images:
        registry, repository, _ = registries.of(f"{at}/{source}")
        name = f"{at}/{source}"
        try:
            tree = platform_images(registry, repository, digest, platforms, name)
        except (NotThere, VerificationError) as error:
            problems.append(f"{name}: {error.message}")
            continue
        for blob in tree.blobs:
            if blob.digest not in checked:
                checked[blob.digest] = blob_flaw(registry, repository, blob.digest, blob.size)
            if checked[blob.digest]:
                problems.append(f"{name}: blob {blob.digest}: {checked[blob.digest]}")
    return problems


def side_by_side(action: Callable[[T], U], items: Sequence[T], jobs: int) -> list[U]:
    """The results in order, `jobs` at a time; after an exception, or Ctrl-C, no further one begins."""
    with Crew(jobs) as crew:
        given = [crew.begin(action, item) for item in items]
        return [each.result() for each in given]
