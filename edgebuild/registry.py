"""Push through the engine, and what the engine holds: on Docker's own SDK, with Docker's own credentials."""

import queue
import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import docker
import requests
import urllib3

from edgebuild.errors import InputError, RegistryError

T = TypeVar("T")
ATTEMPTS = 5
TRANSIENT = re.compile(
    r"\b(429|500|502|503|504)\b|too many requests|timeout|timed out|connection re(set|fused)|broken pipe|"
    r"unexpected EOF|\bEOF\b|internal server error|service unavailable|bad gateway|TLS handshake|temporarily",
    re.IGNORECASE,
)
LOGIN = re.compile(r"\b(401|403)\b|unauthorized|denied|authentication required|no basic auth", re.IGNORECASE)
PERMANENT = re.compile(r"unauthorized|denied|authentication required|no basic auth|not found|invalid reference", re.I)
ERRORS = (docker.errors.DockerException, requests.RequestException, urllib3.exceptions.HTTPError)


@dataclass(frozen=True)
class Pushed:
    """An image that the registry has. `digest` is its manifest's."""

    reference: str
    digest: str
    size_bytes: int
    seconds: float
    skipped: bool


@dataclass(frozen=True)
class LocalImage:
    """An image in the engine. `shared_bytes` is what it has in common with the others listed."""

    reference: str
    id: str
    age_seconds: float
    size_bytes: int
    shared_bytes: int


def split_reference(reference: str) -> tuple[str, str, str]:
    """Host, repository and tag, by Docker's rules: no host means Docker Hub, no tag means latest."""
    head, slash, rest = reference.partition("/")
    is_host = bool(slash) and ("." in head or ":" in head or head == "localhost")
    host, path = (head, rest) if is_host else ("docker.io", reference)
    repository, _, tag = path.partition(":")
    if host == "docker.io" and "/" not in repository:
        repository = f"library/{repository}"
    return host, repository, tag or "latest"


def lifetime(reference: str) -> str:
    """How long a registry keeps an image, where it is known to throw images away; empty otherwise."""
    host, _, tag = split_reference(reference)
    if host != "ttl.sh":
        return ""
    if re.fullmatch(r"[0-9]+[smhd]", tag):
        return f"ttl.sh keeps this image for {tag} (24h at most)"
    return "ttl.sh keeps images for 24 hours at most, by its own documentation 1 hour when the tag names no time"


def is_transient(message: str) -> bool:
    """Whether trying again can help."""
    return bool(TRANSIENT.search(message)) and not PERMANENT.search(message)


def push(
    client: Any,
    references: Sequence[str],
    *,
    jobs: int,
    say: Callable[[str], None],
    progress: Callable[[str, int, int], None] = lambda *_: None,
    wait: Callable[[float], None] = time.sleep,
) -> list[Pushed]:
    """Push all, several at a time. One that fails does not stop the others; RegistryError names them all.

    `progress` gets the reference, the bytes sent and the bytes to send.
    """
    done: list[Pushed] = []
    failed: dict[str, str] = {}

    def one(reference: str) -> None:
        try:
            pushed = _push_one(client, reference, say, wait, progress)
        except RegistryError as error:
            failed[reference] = error.message
            say(f"  {reference}  failed")
            return
        done.append(pushed)
        outcome = "is there already" if pushed.skipped else f"pushed in {pushed.seconds:.1f} s"
        say(f"  {reference}  {outcome}")

    missing = [reference for reference in references if not _exists(client, reference)]
    if missing:
        raise InputError(
            "not built yet: " + ", ".join(missing), hint="./inv build-provider-images with the same --env and --set"
        )
    _each(one, references, jobs)
    if failed:
        lines = "".join(f"\n  {reference}: {message}" for reference, message in sorted(failed.items()))
        login = next((reference for reference, message in failed.items() if LOGIN.search(message)), "")
        host = split_reference(login)[0] if login else ""
        raise RegistryError(
            f"{len(failed)} of {len(references)} images were not pushed:{lines}",
            hint=f"docker login {'' if host == 'docker.io' else host}".strip()
            if login
            else "push again; what is there is skipped",
        )
    return sorted(done, key=lambda pushed: references.index(pushed.reference))


def _each(action: Callable[[str], None], references: Sequence[str], jobs: int) -> None:
    """Call `action` for each, in threads that Ctrl-C does not wait for."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    finished: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    for reference in references:
        waiting.put(reference)

    def work() -> None:
        while True:
            try:
                action(waiting.get_nowait())
            except queue.Empty:
                return
            except BaseException as error:  # handed over, and raised in the caller's thread
                finished.put(error)
            else:
                finished.put(None)

    for _ in range(min(jobs, len(references))):
        threading.Thread(target=work, daemon=True).start()
    for _ in references:
        if error := finished.get():
            raise error


def _exists(client: Any, reference: str) -> bool:
    try:
        client.api.inspect_image(reference)
    except docker.errors.ImageNotFound:
        return False
    return True


class _NotThereYet(RegistryError):
    """The registry does not show what it has just taken: it may with the next answer."""


def _push_one(
    client: Any,
    reference: str,
    say: Callable[[str], None],
    wait: Callable[[float], None],
    progress: Callable[[str, int, int], None],
) -> Pushed:
    started = time.monotonic()
    image = client.api.inspect_image(reference)
    name, _, tag = reference.rpartition(":")

    def attempt(action: Callable[[], T]) -> T:
        return _patiently(action, reference, say, wait)

    def shown(digest: str) -> None:
        found = _remote_digest(client, reference)
        if not found:
            raise _NotThereYet(f"pushed {digest}, but the registry has nothing under this tag")
        if found != digest:
            raise RegistryError(f"pushed {digest}, but the registry has {found} under this tag")

    known = attempt(lambda: _remote_digest(client, reference))
    skipped = bool(known) and f"{name}@{known}" in image.get("RepoDigests", [])
    digest = known if skipped else attempt(lambda: _stream(client, name, tag, progress))
    if not skipped:
        attempt(lambda: shown(digest))
    return Pushed(reference, digest, image["Size"], time.monotonic() - started, skipped=skipped)


def _patiently(
    action: Callable[[], T], reference: str, say: Callable[[str], None], wait: Callable[[float], None]
) -> T:
    """Do it, and again with growing pauses while the registry or the way to it is only out of order."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return action()
        except (RegistryError, *ERRORS) as error:
            message = str(getattr(error, "explanation", None) or error)
            if attempt == ATTEMPTS or not (isinstance(error, _NotThereYet) or is_transient(message)):
                raise RegistryError(message) from error
            pause = 2.0 ** (attempt - 1) * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, no secret
            say(f"  {reference}  {message.strip()[:120]}; again in {pause:.0f} s ({attempt} of {ATTEMPTS})")
            wait(pause)
    raise AssertionError("unreachable")


def _stream(client: Any, name: str, tag: str, progress: Callable[[str, int, int], None]) -> str:
    """Push one tag and return the digest that the engine reports; errors in the stream are errors."""
    digest = ""
    layers: dict[str, tuple[int, int]] = {}
    for event in client.api.push(name, tag=tag, stream=True, decode=True):
        if "error" in event:
            raise RegistryError(str(event["error"]))
        digest = (event.get("aux") or {}).get("Digest", digest)
        detail = event.get("progressDetail") or {}
        if "current" in detail:
            layers[event.get("id", "")] = (detail["current"], max(detail.get("total", 0), detail["current"]))
            sent, total = (sum(numbers) for numbers in zip(*layers.values(), strict=True))
            progress(f"{name}:{tag}", sent, total)
    if not digest:
        raise RegistryError("the engine ended the push without a digest")
    return digest


def _remote_digest(client: Any, reference: str) -> str:
    """The digest under this tag in the registry; empty when there is none."""
    try:
        return str(client.api.inspect_distribution(reference)["Descriptor"]["digest"])
    except docker.errors.NotFound:
        return ""
    except docker.errors.APIError as error:
        # A registry hides what is not there behind a refusal when nobody is logged in: the push tells.
        if LOGIN.search(str(error)) or "manifest unknown" in str(error):
            return ""
        raise


def local_images(client: Any, references: Sequence[str], *, now: float | None = None) -> list[LocalImage]:
    """Those of the references that the engine has."""
    found = []
    for reference in references:
        try:
            found.append((reference, client.api.inspect_image(reference), client.api.history(reference)))
        except docker.errors.ImageNotFound:
            continue
    shared = shared_bytes({reference: _layers(image, history) for reference, image, history in found})
    clock = time.time() if now is None else now
    return [
        LocalImage(
            reference,
            image["Id"].removeprefix("sha256:")[:12],
            clock - _tagged(image),
            image["Size"],
            shared[reference],
        )
        for reference, image, _ in found
    ]


def _layers(image: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """Layer digests with their sizes, lowest first. History has entries without layer; those have no size."""
    digests = image["RootFS"].get("Layers") or []
    sizes = [int(entry["Size"]) for entry in reversed(history) if entry["Size"]]
    # An empty layer has no size in the history: then sizes cannot be told apart, and count for the largest only.
    return list(zip(digests, sizes, strict=False))


def shared_bytes(layers: Mapping[str, Sequence[tuple[str, int]]]) -> dict[str, int]:
    """For each image the bytes of its layers that another one of them has too."""
    users: dict[str, int] = {}
    for found in layers.values():
        for digest in {digest for digest, _ in found}:
            users[digest] = users.get(digest, 0) + 1
    return {name: sum(size for digest, size in found if users[digest] > 1) for name, found in layers.items()}


def _tagged(image: Mapping[str, Any]) -> float:
    """When the engine last gave the image this tag: reproducible images carry no date of their own."""
    from datetime import datetime

    text = (image.get("Metadata") or {}).get("LastTagTime") or image["Created"]
    return datetime.fromisoformat(re.sub(r"(\.\d{1,6})\d*", r"\1", text).replace("Z", "+00:00")).timestamp()
