"""Make and renew a lock file: ask the registries for digests, and built stages for their packages."""

import os
import sys
from dataclasses import replace
from pathlib import Path

from edgebuild import render, workflow
from edgebuild.bootstrap import forget_base, recorded_digest
from edgebuild.container import image_argv
from edgebuild.engine import docker_client, ensure_engine
from edgebuild.errors import InputError
from edgebuild.lock import (
    STAGES,
    Lock,
    difference,
    lock_path,
    lock_text,
    lockable_images,
    parse_packages,
    staleness,
)
from edgebuild.plan import mirrored
from edgebuild.registry import remote_digests
from edgebuild.report import count
from edgebuild.run import run
from edgebuild.session import Session, asked_now, prepare

PACKAGE_STAGES = ("upstream-base", "customized", *STAGES)  # whose steps ask the archives


def lock(session: Session, *, update: bool) -> None:
    """Lock what is not locked yet, or with `update` everything anew; print what changed, in words."""
    name, old = session.plan.environment, session.lock
    if not session.environment.lock:
        raise InputError("this environment has `lock: false`: nothing would read a lock file")
    now = asked_now(session)
    stale = staleness(old, now) if old else []
    if old and not stale and not update:
        sys.stdout.write(f"{lock_path(name)} is up to date; --update looks for newer images and packages\n")
        return
    for words in stale:
        session.say(f"stale: {words}")
    with session.results.lock(session.say):
        new = _resolve(session, None if update else old, now, anew=update)
    _write(session.root / lock_path(name), lock_text(new, name))
    sys.stdout.write("".join(f"{words}\n" for words in difference(old, new) or ["nothing changed"]))
    sys.stdout.write(f"{lock_path(name)}\n")


def _resolve(session: Session, known: Lock | None, now: dict[str, str], *, anew: bool) -> Lock:
    """A lock for what is asked `now`. What is `known` stays; `anew` does without what earlier builds have cached."""
    ensure_engine(session.root, session.consent)
    folder = session.root / render.bootstrap_folder(session.environment)
    if anew:
        forget_base(folder)
    partial = Lock(
        made_for=now,
        images=_digests(session, known.images if known else {}),
        base="",
        packages=known.packages if known else {stage: {} for stage in STAGES},
    )
    current = replace(session, lock=partial)
    prepared = prepare(current, with_secrets=False, locking=True)
    images = workflow.build_stages(current, prepared, STAGES, fresh=PACKAGE_STAGES if anew else ())
    return partial.model_copy(
        update={
            "base": recorded_digest(folder) if session.environment.os.bootstrap else "",
            "packages": {
                stage: parse_packages(run(image_argv(images[stage], render.installed_script())).stdout)
                for stage in STAGES
            },
        }
    )


def _digests(session: Session, known: dict[str, str]) -> dict[str, str]:
    """Upstream references, before mirrors, to digests."""
    found = {}
    missing = {}
    for source in lockable_images(session.environment).values():
        named, pinned, digest = source.partition("@")
        if pinned:
            found[source] = digest
        elif source in known:
            found[source] = known[source]
        else:
            missing[source] = mirrored(named, session.environment.registries.mirrors)
    if missing:
        session.say(f"asking for the digests of {count(len(missing), 'image')}")
        digests = remote_digests(docker_client(), list(missing.values()), say=session.say)
        found |= {source: digests[reference] for source, reference in missing.items()}
    return found


def _write(path: Path, text: str) -> None:
    """Replace the file in one step, readable for everybody: it holds no secret."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
