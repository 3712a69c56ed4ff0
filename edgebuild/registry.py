"""Push through the engine: on Docker's own SDK, with Docker's own credentials."""

import contextlib
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import docker
import requests
import urllib3

from edgebuild.errors import InputError, RegistryError, ToolError
from edgebuild.references import is_transient, split_reference, what_helps

T = TypeVar("T")
ATTEMPTS = 5
STALLED_ATTEMPTS = 2  # each takes as long as the client waits
# The engine itself is gone, not the registry behind it; APIError is its answer, and one of requests' errors too.
GONE = (requests.RequestException, urllib3.exceptions.HTTPError, docker.errors.StreamParseError)
# Nothing was heard for as long as the client waits; in a stream it comes as one of the others.
SILENCE = (TimeoutError, requests.ReadTimeout, requests.ConnectionError, urllib3.exceptions.ReadTimeoutError)


@dataclass(frozen=True)
class Pushed:
    """An image that the registry has. `digest` is its manifest's, `image` the engine's own."""

    reference: str
    digest: str
    image: str
    size_bytes: int
    seconds: float
    skipped: bool

    @property
    def outcome(self) -> str:
        """What became of it, for people."""
        return "is there already" if self.skipped else f"pushed in {self.seconds:.1f} s"


def push(
    client: Any,
    references: Sequence[str],
    *,
    jobs: int,
    say: Callable[[str], None],
    progress: Callable[[str, int, int], None] = lambda *_: None,
    attempts: int = ATTEMPTS,
    wait: Callable[[float], None] = time.sleep,
) -> list[Pushed]:
    """Push all, several at a time. One that fails does not stop the others; RegistryError names them all.

    `progress` gets the reference, the bytes sent and the bytes to send; `wait` the seconds until the next of
    the `attempts`. Raises InputError when an image was not built, ToolError when the engine is gone.
    """
    images = built_images(client, references)
    done, failed = push_some(client, images, jobs=jobs, say=say, progress=progress, attempts=attempts, wait=wait)
    return concluded(references, done, failed)


def built_images(client: Any, references: Sequence[str]) -> dict[str, Any]:
    """What the engine tells of each image. Raises InputError when one was not built."""
    images = {reference: find_image(client, reference) for reference in references}
    if missing := [reference for reference, image in images.items() if not image]:
        raise InputError(
            "not built yet: " + ", ".join(missing), hint="./inv build-provider-images with the same --env and --set"
        )
    return images


def concluded(references: Sequence[str], done: Sequence[Pushed], failed: Mapping[str, str]) -> list[Pushed]:
    """Those that were pushed, in the order of `references`. Raises RegistryError when some were not."""
    if failed:
        lines = "".join(f"\n  {reference}: {message}" for reference, message in sorted(failed.items()))
        hints = filter(None, (what_helps(*failure) for failure in failed.items()))
        raise RegistryError(
            f"{len(failed)} of {len(references)} images were not pushed:{lines}",
            hint=next(hints, "push again; what is there is skipped"),
        )
    return sorted(done, key=lambda pushed: references.index(pushed.reference))


def push_some(
    client: Any,
    images: Mapping[str, Any],
    *,
    jobs: int,
    say: Callable[[str], None],
    progress: Callable[[str, int, int], None] = lambda *_: None,
    attempts: int = ATTEMPTS,
    wait: Callable[[float], None] = time.sleep,
) -> tuple[list[Pushed], dict[str, str]]:
    """Push, and return what was pushed, and why the others were not. Raises ToolError when the engine is gone."""
    done: list[Pushed] = []
    failed: dict[str, str] = {}

    def one(reference: str) -> None:
        def pause(reason: str, number: int) -> None:
            seconds = 2.0 ** (number - 1) * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, no secret
            say(f"  {reference}  {reason[:120]}; again in {seconds:.0f} s ({number} of {attempts})")
            wait(seconds)

        try:
            pushed = _push_one(client, reference, images[reference], _Patience(attempts, pause), progress)
        except RegistryError as error:
            failed[reference] = error.message
            say(f"  {reference}  failed")
            return
        done.append(pushed)
        say(f"  {reference}  {pushed.outcome}")

    _each(one, list(images), jobs)
    return done, failed


def _each(action: Callable[[str], None], references: Sequence[str], jobs: int) -> None:
    """Call `action` for each, in threads that Ctrl-C does not wait for."""
    pending = iter(references)
    finished: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def work() -> None:
        for reference in pending:
            try:
                action(reference)
            except BaseException as error:  # handed over, and raised in the caller's thread
                list(pending)
                finished.put(error)
            else:
                finished.put(None)

    for _ in range(min(jobs, len(references))):
        threading.Thread(target=work, daemon=True).start()
    try:
        for _ in references:
            if error := finished.get():
                raise error
    finally:
        list(pending)  # emptied after Ctrl-C, as without an engine: begin no further one


@contextlib.contextmanager
def engine_errors() -> Iterator[None]:
    """Turn the end of the engine into ToolError; its answers pass."""
    try:
        yield
    except docker.errors.APIError:
        raise
    except GONE as error:
        raise ToolError(f"the engine does not answer: {error}", hint="./inv doctor") from error


def find_image(client: Any, reference: str) -> Any:
    """The engine's own image; None when it has none of this name."""
    with engine_errors():
        try:
            return client.api.inspect_image(reference)
        except docker.errors.ImageNotFound:
            return None


def has_image(client: Any, reference: str) -> bool:
    """Whether the engine has an image of this name or digest."""
    return bool(find_image(client, reference))


class _NotThereYet(RegistryError):
    """The registry does not show what it has just taken: it may with the next answer."""


class _Stalled(RegistryError):
    """The registry took the connection and says no more."""


@contextlib.contextmanager
def _answering(client: Any) -> Iterator[None]:
    """The engine passes a question on and waits without end; where the registry is silent for too long, raise."""
    try:
        yield
    except SILENCE as error:
        if isinstance(error, requests.ConnectionError) and "timed out" not in str(error):
            raise
        raise _Stalled(f"the registry stalls: nothing came for {client.api.timeout} s, timed out") from error


def _push_one(
    client: Any, reference: str, image: Any, patience: "_Patience", progress: Callable[[str, int, int], None]
) -> Pushed:
    started = time.monotonic()
    try:
        known = patience.attempt(lambda: _remote_digest(client, reference))
    except RegistryError as error:
        if is_transient(error.message):
            raise
        known = ""  # a registry may refuse to be asked for what is not there: the push tells
    if is_pushed(reference, known, image):
        return Pushed(reference, known, image["Id"], image["Size"], time.monotonic() - started, skipped=True)
    digest = patience.attempt(lambda: _stream(client, reference, progress))

    def compare() -> None:
        found = _remote_digest(client, reference)
        if found != digest:
            kind = _NotThereYet if found in {"", known} else RegistryError
            raise kind(f"pushed {digest}, but the registry has {found or 'nothing'} under this tag")

    patience.attempt(compare)
    return Pushed(reference, digest, image["Id"], image["Size"], time.monotonic() - started, skipped=False)


def is_pushed(reference: str, digest: str, image: Mapping[str, Any]) -> bool:
    """Whether the engine knows that this digest in the registry is its image."""
    return bool(digest) and f"{_familiar(reference)}@{digest}" in (image.get("RepoDigests") or [])


def _familiar(reference: str) -> str:
    """The name as the engine keeps it: without tag, and for Docker Hub without host."""
    host, repository, _ = split_reference(reference)
    return repository.removeprefix("library/") if host == "docker.io" else f"{host}/{repository}"


@dataclass(frozen=True)
class _Patience:
    """Tries again while the registry or the way to it is only out of order."""

    attempts: int
    pause: Callable[[str, int], None]  # gets the reason and the number of the attempt that failed

    def attempt(self, action: Callable[[], T]) -> T:
        """Raises RegistryError at a final failure and after the last attempt, ToolError without an engine."""
        number = 1
        while True:
            try:
                with engine_errors():
                    return action()
            except (RegistryError, ToolError, docker.errors.DockerException) as error:
                reason = str(getattr(error, "explanation", None) or getattr(error, "message", None) or error).strip()
                attempts = min(self.attempts, STALLED_ATTEMPTS) if isinstance(error, _Stalled) else self.attempts
                if number >= attempts or not (isinstance(error, _NotThereYet) or is_transient(reason)):
                    raise error if isinstance(error, ToolError) else RegistryError(reason) from error
            self.pause(reason, number)
            number += 1


def _stream(client: Any, reference: str, progress: Callable[[str, int, int], None]) -> str:
    """Push one tag and return the digest that the engine reports; errors in the stream are errors."""
    digest = ""
    layers: dict[str, tuple[int, int]] = {}
    name, tag = _familiar(reference), split_reference(reference)[2]
    for event in _events(client, name, tag):
        if "error" in event:
            raise RegistryError(str(event["error"]))
        digest = (event.get("aux") or {}).get("Digest", digest)
        detail = event.get("progressDetail") or {}
        if "current" in detail:
            layers[event.get("id", "")] = (detail["current"], max(detail.get("total", 0), detail["current"]))
            sent, total = (sum(numbers) for numbers in zip(*layers.values(), strict=True))
            progress(reference, sent, total)
    if not digest:
        raise RegistryError("the engine ended the push without a digest: unexpected EOF")
    return digest


def _events(client: Any, name: str, tag: str) -> Iterator[Any]:
    """What the engine tells of a push; its words come all the time while bytes go out."""
    with _answering(client):
        yield from client.api.push(name, tag=tag, stream=True, decode=True)


def _remote_digest(client: Any, reference: str) -> str:
    """The digest under this tag in the registry; empty when there is none."""
    try:
        with _answering(client):
            return str(client.api.inspect_distribution(reference)["Descriptor"]["digest"])
    except docker.errors.NotFound:
        return ""


def remote_digests(
    client: Any,
    references: Sequence[str],
    *,
    say: Callable[[str], None],
    attempts: int = ATTEMPTS,
    wait: Callable[[float], None] = time.sleep,
) -> dict[str, str]:
    """The digests that registries have under these references now. Raises RegistryError, ToolError."""
    found = {}
    for reference in references:

        def pause(reason: str, number: int, reference: str = reference) -> None:
            say(f"  {reference}  {reason[:120]}; again ({number} of {attempts})")
            wait(2.0 ** (number - 1))

        def ask(reference: str = reference) -> str:
            return _remote_digest(client, reference)

        try:
            found[reference] = _Patience(attempts, pause).attempt(ask)
        except RegistryError as error:
            hint = what_helps(reference, error.message) or "try again later"
            raise RegistryError(f"{reference}: {error.message}", hint=hint) from error
        if not found[reference]:
            hint = "check release, os.version and registries.mirrors: ./inv plan"
            raise RegistryError(f"{reference} does not exist", hint=hint)
    return found
