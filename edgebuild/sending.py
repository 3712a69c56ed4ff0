"""Push straight from the engine's storage: each layer is read, packed and sent once, whatever it is for.

The engine itself packs every layer on one core, and would send one that two repositories want twice.
"""

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from edgebuild import layerstore, packing, registry, upload
from edgebuild.crew import Crew
from edgebuild.errors import RegistryError
from edgebuild.imagescan import Image
from edgebuild.oci import MANIFESTS, Registry, describe
from edgebuild.records import Records
from edgebuild.references import is_transient, split_reference
from edgebuild.registry import ATTEMPTS, STALLED_ATTEMPTS, Pushed
from edgebuild.transport import BadMoment, Patience

CONFIGURATION = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
MANIFEST = MANIFESTS[1]  # Docker's own, as the engine pushes
ANSWER_SECONDS = 10.0  # for a registry to say anything at all
LAYERS, IMAGES = "layers", "images"  # kinds of records


@dataclass(frozen=True)
class Settings:
    """How to push. `cache` is a folder for packed layers on their way, and for what is known of those sent."""

    cache: Path
    jobs: int
    stall_seconds: float = 60.0
    wait: Callable[[float], None] = time.sleep

    def patience(self, host: str, say: Callable[[str], None]) -> Patience:
        def wait(seconds: float) -> None:
            say(f"  {host} is out of order; again in {seconds:.0f} s")
            self.wait(seconds)

        return Patience(
            read_seconds=self.stall_seconds, attempts=ATTEMPTS, stalled_attempts=STALLED_ATTEMPTS, wait=wait
        )


Blob = tuple[str, int]  # digest and size of a packed layer
Place = tuple[str, str]  # host and repository


class Sending:
    """One push: what is to be sent where, and what has become of it."""

    def __init__(
        self,
        images: Mapping[str, Any],
        settings: Settings,
        crew: Crew,
        say: Callable[[str], None],
        progress: Callable[[str, int, int], None],
    ) -> None:
        self.images = {reference: Image(reference, facts["Id"], facts) for reference, facts in images.items()}
        self.settings, self.crew, self.say, self.progress = settings, crew, say, progress
        self.records, self.folder = Records(settings.cache), settings.cache / "packed"
        self.begun = time.monotonic()
        self.ended: dict[str, Future[Pushed]] = {}  # by reference
        self.blobs: dict[tuple[Place, str], Future[Blob]] = {}  # by place and layer
        self.owners: dict[str, str] = {}  # by layer the reference that stands for it in what is shown
        self._threads = threading.local()

    def run(self, store: Path) -> None:
        """Ask, read, pack, send. Raises NotReadable; what was begun goes on."""
        asked = {reference: self.crew.begin(self._look, reference) for reference in self.images}
        rest = {}
        for reference, job in asked.items():
            if job.exception() is None and job.result() is None:
                rest[reference] = self.images[reference]
            else:
                self.ended[reference] = cast("Future[Pushed]", job)
        if rest:
            self._send(store, rest)

    def collect(self) -> tuple[list[Pushed], dict[str, str]]:
        """Wait for what was begun: what was pushed, and why others were not."""
        done, failed = [], {}
        for reference, job in self.ended.items():
            try:
                done.append(job.result())
            except RegistryError as error:
                failed[reference] = error.message
        return done, failed

    def _send(self, store: Path, images: dict[str, Image]) -> None:
        """Every layer that a repository lacks goes there, and each image as soon as its layers are on their way."""
        layers = {layer.digest: layer for image in images.values() for layer in layerstore.layers_of(image)}
        lacking = self._lacking(images)
        for layer in layers.keys() - lacking.keys():
            packing.spool(self.folder, layer).unlink(missing_ok=True)
        found = {layer: packed for layer in lacking if (packed := packing.waiting(self.folder, layer))}
        unread = [layers[layer] for layer in lacking if layer not in found]
        total = len(lacking)
        self.say(f"  {total} of {len(layers)} layers are to be sent" if total else "  all layers are there already")
        ids = [image.id for image in images.values()]
        with layerstore.opened(store, ids, unread, folder=self.settings.cache) as reader:
            self._finish(images, reader.configurations)
            for layer, packed in itertools.chain(found.items(), packing.pack(reader.layers(), self.folder)):
                self._begin(layer, packed, lacking[layer])
                self._finish(images, reader.configurations)

    def _lacking(self, images: Mapping[str, Image]) -> dict[str, list[Place]]:
        """By layer the places that have to get it; where it is already, `blobs` has it."""
        asked: dict[tuple[Place, str], Future[Blob | None]] = {}
        for reference, image in images.items():
            place = split_reference(reference)[:2]
            for layer in image.layers:
                self.owners.setdefault(layer, reference)
                if (place, layer) not in asked:
                    asked[place, layer] = self.crew.begin(self._ask, place, layer)
        lacking: dict[str, list[Place]] = {}
        for (place, layer), job in asked.items():
            if job.exception() is None and job.result() is None:
                lacking.setdefault(layer, []).append(place)
            else:
                self.blobs[place, layer] = cast("Future[Blob]", job)
        return lacking

    def _begin(self, layer: str, packed: packing.Packed, places: Sequence[Place]) -> None:
        """Send a layer to these places; to several repositories of a registry one after the other."""
        before: dict[str, Future[Blob]] = {}  # by host
        needs = _Needs(packed, len(places))
        for host, repository in places:
            place = (host, repository)
            before[host] = self.crew.begin(self._upload, place, layer, needs, before.get(host))
            self.blobs[place, layer] = before[host]

    def _finish(self, images: dict[str, Image], configurations: Mapping[str, bytes]) -> None:
        """Begin with the images whose layers are all on their way or there; they are no longer in `images`."""
        for reference, image in list(images.items()):
            places = [(split_reference(reference)[:2], layer) for layer in image.layers]
            if all(each in self.blobs for each in places):
                blobs = [self.blobs[each] for each in places]
                job = self.crew.begin(self._put_image, reference, image.id, configurations[image.id], blobs)
                self.ended[reference] = job
                del images[reference]

    # What follows runs in the crew's threads.

    def _look(self, reference: str) -> Pushed | None:
        """What the registry has already; None when the image must be pushed."""
        host, repository, tag = split_reference(reference)
        image = self.images[reference]
        try:
            found = self._remote(host).named(repository, tag) or ""
        except RegistryError as error:
            if is_transient(error.message):
                raise self._failed(reference, error) from error
            return None  # a registry may refuse to be asked for what is not there: the push tells
        sent = (self.records.get(IMAGES, image.id) or {}).get("manifest")
        if found and (found == sent or registry.is_pushed(reference, found, image.facts)):
            return self._told(reference, found, skipped=True)
        return None

    def _ask(self, place: Place, layer: str) -> Blob | None:
        """The packed layer when the repository has it, or takes it over from another; None when it must be sent."""
        record = self.records.get(LAYERS, layer)
        if not record:
            return None
        (host, repository), (digest, size) = place, record["blob"]
        sources = [record["at"][host]] if host in record["at"] else []
        there = upload.take_blob(self._remote(host), repository, digest, mount_from=sources)
        return (digest, size) if there else None

    def _upload(self, place: Place, layer: str, needs: "_Needs", before: Future[Blob] | None) -> Blob:
        """Send the layer, or let the repository take it over from the one that got it `before`."""
        (host, repository), packed = place, needs.packed
        if before:
            before.exception()  # waited for; an error is its own images'
        at = (self.records.get(LAYERS, layer) or {}).get("at", {})
        sources = [at[host]] if host in at else []

        def read(offset: int) -> Iterator[bytes]:
            for piece in packed.pieces(offset):
                yield piece
                offset += len(piece)
                self.progress(self.owners[layer], offset, packed.size_bytes)

        remote = self._remote(host)
        upload.send_blob(remote, repository, packed.digest, packed.size_bytes, read, mount_from=sources)
        blob = (packed.digest, packed.size_bytes)
        self.records.add(LAYERS, layer, blob=blob, at={**at, host: repository})
        needs.over()
        return blob

    def _put_image(self, reference: str, image: str, configuration: bytes, blobs: Sequence[Future[Blob]]) -> Pushed:
        """Configuration and manifest, when the layers are there; then look whether the tag leads to it."""
        host, repository, tag = split_reference(reference)
        try:
            layers = [{"mediaType": LAYER, "digest": digest, "size": size} for digest, size in _results(blobs)]
            remote = self._remote(host)
            remote.put_blob(repository, configuration)
            manifest = {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": describe(CONFIGURATION, configuration),
                "layers": layers,
            }
            digest = remote.put_manifest(repository, tag, json.dumps(manifest, indent=1).encode(), MANIFEST)
            remote.patience.again(lambda: _compare(remote, repository, tag, digest))
        except RegistryError as error:
            raise self._failed(reference, error) from error
        self.records.add(IMAGES, image, manifest=digest)
        return self._told(reference, digest, skipped=False)

    def _told(self, reference: str, digest: str, *, skipped: bool) -> Pushed:
        image = self.images[reference]
        seconds = time.monotonic() - self.begun
        pushed = Pushed(reference, digest, image.id, image.facts["Size"], seconds, skipped=skipped)
        self.say(f"  {reference}  {pushed.outcome}")
        return pushed

    def _failed(self, reference: str, error: RegistryError) -> RegistryError:
        self.say(f"  {reference}  failed")
        return error

    def _remote(self, host: str) -> Registry:
        """The registry, for this thread: connections are not shared."""
        known: dict[str, Registry] = self._threads.__dict__.setdefault("registries", {})
        if host not in known:
            known[host] = Registry(host, patience=self.settings.patience(host, self.say))
        return known[host]


class _Needs:
    """A packed layer, and how many repositories still need it; its file goes with the last of them."""

    def __init__(self, packed: packing.Packed, repositories: int) -> None:
        self.packed, self._left, self._lock = packed, repositories, threading.Lock()

    def over(self) -> None:
        with self._lock:
            self._left -= 1
            if not self._left:
                self.packed.file.unlink(missing_ok=True)


def _results(blobs: Sequence[Future[Blob]]) -> list[Blob]:
    return [each.result() for each in blobs]


def _compare(remote: Registry, repository: str, tag: str, digest: str) -> None:
    """Raise RegistryError when the tag leads elsewhere, BadMoment when it does not lead anywhere yet."""
    found = remote.named(repository, tag)
    if found == "":
        found = remote.manifest(repository, tag)[0]
    if found != digest:
        kind = RegistryError if found else BadMoment
        raise kind(f"pushed {digest}, but the registry has {found or 'nothing'} under this tag")
