"""A registry's images by the OCI distribution API: read and checked by digest, and tagged."""

import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

from edgebuild.engine import is_insecure
from edgebuild.errors import RegistryError
from edgebuild.imagetree import INDEX as INDEX
from edgebuild.imagetree import INDEXES, LEVELS
from edgebuild.imagetree import MANIFEST as MANIFEST
from edgebuild.references import split_reference
from edgebuild.sums import digest_of as digest_of  # others of the registry take it from here
from edgebuild.transport import BadMoment, NotThere, Patience, Transport
from edgebuild.values import DIGEST as DIGEST

PATIENCE = Patience()
CERTIFICATES = Path("/etc/docker/certs.d")
MANIFESTS = (MANIFEST, "application/vnd.docker.distribution.manifest.v2+json")
LARGEST_READ = 256 << 20  # bytes; an SBOM of a large image has a tenth
ACCEPT = ", ".join((*INDEXES, *MANIFESTS))

Document = dict[str, Any]


class OtherBytes(RegistryError):
    """The registry serves something else than what the digest names."""


def describe(media_type: str, data: bytes) -> Document:
    """An OCI descriptor of these bytes."""
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


class Registry:
    """One registry, `host[:port]` or docker.io. Everything it says that it should not raises RegistryError."""

    def __init__(
        self,
        host: str,
        *,
        patience: Patience = PATIENCE,
        certificates: Path = CERTIFICATES,
        insecure: Callable[[str], bool] = is_insecure,
    ) -> None:
        self.host, self.patience = host, patience
        self.http = Transport(host, patience, certificates, insecure)

    def manifest(self, repository: str, reference: str) -> tuple[str, str, bytes]:
        """Digest, media type and bytes of what stands under a tag or digest. Raises NotThere, OtherBytes."""
        name = f"{self.host}/{repository}{'@' if DIGEST.fullmatch(reference) else ':'}{reference}"

        def get() -> tuple[str, str, bytes]:
            path, headers = f"{repository}/manifests/{reference}", {"Accept": ACCEPT}
            response = self.http.send("GET", path, repository=repository, headers=headers)
            data = self.http.read(response)
            digest = digest_of(data)
            named = (
                reference if DIGEST.fullmatch(reference) else response.headers.get("Docker-Content-Digest", digest)
            )
            if digest != named:
                raise OtherBytes(f"{name}: the registry names {named}, but serves {digest}")
            return digest, response.headers.get("Content-Type", "").partition(";")[0], data

        return self.patience.again(get)

    def exists(self, repository: str, reference: str) -> bool:
        """Whether the registry has a manifest under this tag or digest; its bytes are not read."""
        return self.named(repository, reference) is not None

    def named(self, repository: str, reference: str) -> str | None:
        """The digest that the registry names for a tag; empty when it names none, None when it has nothing there."""

        def head() -> str | None:
            path, headers = f"{repository}/manifests/{reference}", {"Accept": ACCEPT}
            with self.http.send(
                "HEAD", path, repository=repository, expected=(200, 404), headers=headers
            ) as response:
                return response.headers.get("Docker-Content-Digest", "") if response.status_code == 200 else None

        return self.patience.again(head)

    def pages(self, repository: str, path: str) -> Iterator[Document]:
        """The JSON below /v2/[repository]/ at `path`, and what its Link headers lead to. Raises NotThere."""
        following = f"{repository}/{path}"
        while following:

            def get(path: str = following) -> tuple[bytes, str]:
                response = self.http.send("GET", path, repository=repository)
                return self.http.read(response), response.links.get("next", {}).get("url", "")

            data, following = self.patience.again(get)
            if following and urlsplit(urljoin(self.http.base, following)).netloc != urlsplit(self.http.base).netloc:
                raise RegistryError(f"{self.host}/{repository}: the list at {path} leads to another host")
            yield document(f"{self.host}/{repository}: {path}", data)

    def blob(self, repository: str, digest: str, *, size: int | None = None, start: int = 0) -> Iterator[bytes]:
        """The blob in pieces, continued where a connection was cut. At its end raises OtherBytes if it is another.

        From a `start` on, only the length is checked: who has the bytes before it must check the whole.
        """
        hasher, done, number = hashlib.sha256(), start, 1
        while True:
            headers = {"Range": f"bytes={done}-"} if done else {}
            try:
                with self.http.send(
                    "GET",
                    f"{repository}/blobs/{digest}",
                    repository=repository,
                    expected=(200, 206),
                    headers=headers,
                ) as response:
                    known = done if response.status_code == 200 else 0  # a registry without ranges begins anew
                    for whole in self.http.pieces(response):
                        piece, known = whole[known:], max(known - len(whole), 0)
                        hasher.update(piece)
                        done += len(piece)
                        if size is not None and done > size:
                            raise OtherBytes(f"{self.host}/{repository}@{digest}: more than its {size} bytes")
                        yield piece
                break
            except BadMoment as moment:
                self.patience.pause(moment, number)
                number += 1
        if size is not None and done != size:
            raise OtherBytes(f"{self.host}/{repository}@{digest}: {done} of its {size} bytes")
        if not start and f"sha256:{hasher.hexdigest()}" != digest:
            raise OtherBytes(f"{self.host}/{repository}@{digest}: the registry serves other bytes")

    def put_blob(self, repository: str, data: bytes) -> str:
        """Upload; returns the digest. What is there already is not sent."""
        digest = digest_of(data)

        def put() -> None:
            ask = functools.partial(self.http.send, repository=repository, actions="pull,push")
            with ask("HEAD", f"{repository}/blobs/{digest}", expected=(200, 404)) as found:
                if found.status_code == 200:
                    return
            with ask("POST", f"{repository}/blobs/uploads/", expected=(202,)) as begun:
                place = urljoin(self.http.base, begun.headers.get("Location", ""))
            target = f"{place}{'&' if '?' in place else '?'}{urlencode({'digest': digest})}"
            kind = {"Content-Type": "application/octet-stream"}
            ask("PUT", target, expected=(201,), headers=kind, body=data).close()

        self.patience.again(put)
        return digest

    def put_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> str:
        """Store a manifest under a tag or its digest; returns the digest."""
        return self.put(repository, reference, data, media_type)[0]

    def put(self, repository: str, reference: str, data: bytes, media_type: str) -> tuple[str, bool]:
        """put_manifest, and whether the registry lists it by itself among its subject's referrers."""
        digest = digest_of(data)

        def put() -> bool:
            with self.http.send(
                "PUT",
                f"{repository}/manifests/{reference}",
                repository=repository,
                actions="pull,push",
                expected=(201,),
                headers={"Content-Type": media_type},
                body=data,
            ) as response:
                taken = response.headers.get("Docker-Content-Digest", digest)
                if taken != digest:
                    raise OtherBytes(f"{self.host}/{repository}: sent {digest}, but the registry took {taken}")
                return "OCI-Subject" in response.headers

        return digest, self.patience.again(put)

    def retag(self, repository: str, digest: str, tag: str) -> None:
        """Give the manifest of this digest another tag: the same bytes, so the digest stays."""
        _, media_type, data = self.manifest(repository, digest)
        self.put_manifest(repository, tag, data, media_type)

    def read_blob(self, repository: str, descriptor: Mapping[str, Any]) -> bytes:
        """A small blob as a whole, checked against its descriptor."""
        digest, size = descriptor.get("digest"), descriptor.get("size")
        if not isinstance(digest, str) or not DIGEST.fullmatch(digest) or not isinstance(size, int):
            raise OtherBytes(f"{self.host}/{repository}: a descriptor without sha256 digest and size")
        if size > LARGEST_READ:
            raise OtherBytes(f"{self.host}/{repository}@{digest}: {size} bytes are too many")
        return b"".join(self.blob(repository, digest, size=size))


def document(name: str, data: bytes) -> Document:
    """A manifest's JSON. Raises OtherBytes when it is none."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise OtherBytes(f"{name}: the registry serves no JSON") from error
    if not isinstance(found, dict):
        raise OtherBytes(f"{name}: the registry serves no manifest")
    return found


def descriptors(manifest: Document, key: str) -> list[Document]:
    """The descriptors under this key; a manifest of others' making may hold anything."""
    found = manifest.get(key)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def check_image(reference: str, digest: str, registry: Registry, checked: dict[str, str] | None = None) -> list[str]:
    """Read the image of this digest whole: manifest (an index with its children), config, every layer.

    Returns what differs, one line each; nothing when every byte is what its digest says. `checked` remembers
    blobs from one image to the next. Raises RegistryError when the registry cannot be asked.
    """
    repository = split_reference(reference)[1]
    return _check_manifest(registry, repository, reference, digest, {} if checked is None else checked)


def _check_manifest(
    registry: Registry, repository: str, reference: str, digest: str, checked: dict[str, str], levels: int = LEVELS
) -> list[str]:
    if not DIGEST.fullmatch(digest) or not levels:
        return [f"{reference}: {digest} is no sha256 digest, or in an index of too many levels"]
    try:
        _, media_type, data = registry.manifest(repository, digest)
        manifest = document(reference, data)
    except NotThere:
        return [f"{reference}: the registry has no {digest}"]
    except OtherBytes as error:
        return [f"manifest of {reference}: {error.message}"]
    if media_type in INDEXES or "manifests" in manifest:
        children = [str(each.get("digest")) for each in descriptors(manifest, "manifests")]
        check = functools.partial(
            _check_manifest, registry, repository, reference, checked=checked, levels=levels - 1
        )
        return [problem for child in children for problem in check(child)]
    layers, config = descriptors(manifest, "layers"), manifest.get("config")
    if not isinstance(config, dict):
        return [f"{reference}: its manifest names no configuration"]
    parts = [("configuration", config)]
    parts += [(f"layer {number} of {len(layers)}", layer) for number, layer in enumerate(layers, 1)]
    problems = []
    for name, descriptor in parts:
        key = f"{repository}@{descriptor.get('digest')}"
        if key not in checked:
            checked[key] = _check_blob(registry, repository, descriptor)
        if checked[key]:
            size = descriptor.get("size")
            told = f", {size / 1e6:.1f} MB" if isinstance(size, int) and 0 <= size < 1 << 60 else ""
            problems.append(f"{name} ({str(descriptor.get('digest'))[:71]}{told}) of {reference}: {checked[key]}")
    return problems


def _check_blob(registry: Registry, repository: str, descriptor: Mapping[str, Any]) -> str:
    """What is wrong with this blob; empty when nothing is."""
    digest, size = descriptor.get("digest"), descriptor.get("size")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest) or not isinstance(size, int):
        return "the manifest names no sha256 digest and size"
    return blob_flaw(registry, repository, digest, size)


def blob_flaw(registry: Registry, repository: str, digest: str, size: int) -> str:
    """What is wrong with a blob, which is read whole; empty when nothing is."""
    try:
        for _ in registry.blob(repository, digest, size=size):
            pass
    except NotThere:
        return "the registry has none"
    except OtherBytes as error:
        return error.message.partition(": ")[2]
    return ""


def check_images(images: Sequence[tuple[str, str]], *, patience: Patience = PATIENCE) -> list[str]:
    """check_image for pairs of reference and digest, reading what they share once."""
    registries: dict[str, Registry] = {}
    checked: dict[str, str] = {}
    problems = []
    for reference, digest in images:
        host = split_reference(reference)[0]
        registry = registries.setdefault(host, Registry(host, patience=patience))
        problems += check_image(reference, digest, registry, checked)
    return problems
