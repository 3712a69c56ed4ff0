"""Push images: straight from the engine's storage where that can be read, else by the engine itself."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgebuild import layerstore, registry
from edgebuild.crew import Crew
from edgebuild.leftovers import remove_containers
from edgebuild.locking import locked
from edgebuild.oci import Registry
from edgebuild.references import split_reference
from edgebuild.registry import Pushed
from edgebuild.sending import Sending, Settings
from edgebuild.transport import Patience

ANSWER_SECONDS = 10.0  # for a registry to say anything at all


def push(
    client: Any,
    references: Sequence[str],
    settings: Settings,
    *,
    say: Callable[[str], None],
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> list[Pushed]:
    """Push all, several at a time; what a registry has is not sent again. One that fails does not stop the others.

    `progress` gets a reference, and of one of its layers the bytes sent and to send. Raises RegistryError that names
    all that failed, InputError when an image was not built, ToolError when the engine is gone.
    """
    images = registry.built_images(client, references)
    store = layerstore.storage(client)
    near = _near(images, settings, say) if store else {}
    done: list[Pushed] = []
    failed: dict[str, str] = {}
    if store and near:
        # Of two pushes at the same time the second finds what the first has sent.
        with locked(settings.cache / ".lock", say, "repository's pushes"), Crew(settings.jobs) as crew:
            _remove_leftovers(settings.cache, say)
            sending = Sending(near, settings, crew, say, progress)
            try:
                sending.run(store)
            except layerstore.NotReadable as error:
                say(f"note: {error.message}; the engine pushes what is left")
            except OSError as error:  # no room for what is packed: the engine needs none
                say(f"note: {error.filename}: {error.strerror}; the engine pushes what is left")
            done, failed = sending.collect()
    over = {*failed, *(each.reference for each in done)}
    rest = {reference: image for reference, image in images.items() if reference not in over}
    if rest:
        more, others = registry.push_some(
            client, rest, jobs=settings.jobs, say=say, progress=progress, wait=settings.wait
        )
        done, failed = [*done, *more], {**failed, **others}
    return registry.concluded(references, done, failed)


def _near(images: Mapping[str, Any], settings: Settings, say: Callable[[str], None]) -> dict[str, Any]:
    """The images for registries that answer here; the engine may have a proxy or certificates that we have not."""
    answering = {}
    for host in dict.fromkeys(split_reference(reference)[0] for reference in images):
        seconds = min(settings.stall_seconds, ANSWER_SECONDS)
        answering[host] = Registry(host, patience=Patience(seconds, seconds, attempts=1)).http.answers()
        if not answering[host]:
            say(f"note: {host} does not answer here; the engine pushes")
    return {reference: image for reference, image in images.items() if answering[split_reference(reference)[0]]}


def _remove_leftovers(cache: Path, say: Callable[[str], None]) -> None:
    """What a killed push has left; for who holds the lock."""
    remove_containers(cache, say)
    for path in cache.glob(f"{layerstore.READING}*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in (cache / "packed").glob(".*"):
        path.unlink()
