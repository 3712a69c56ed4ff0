"""Make room: show what will go and what it frees, ask, and remove it."""

import contextlib
import re
import shutil
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgebuild import report
from edgebuild.belongings import FOLDERS, Belongings, caches, look, own_tags
from edgebuild.clearance import BYTES, Entry, choose, parse_age, parse_size, shown
from edgebuild.engine import docker_client, probe
from edgebuild.locking import locked
from edgebuild.run import run
from edgebuild.session import Session


@dataclass(frozen=True)
class Options:
    """What goes: all, or what is `older_than` an age such as 7d, and the oldest beyond the size to `keep`.

    `cache`: also what builds of all environments share.
    """

    older_than: str = ""
    keep: str = ""
    cache: bool = False
    dry_run: bool = False
    yes: bool = False


def clean(sessions: Sequence[Session], options: Options) -> None:
    """Remove results, logs and images of these environments. Raises InputError for no age or size."""
    older_than = parse_age(options.older_than) if options.older_than else None
    keep = parse_size(options.keep) if options.keep else None
    first, tags = sessions[0], {each.plan.environment: own_tags(each) for each in sessions}
    with contextlib.ExitStack() as stack:
        if not options.dry_run:
            _lock(stack, sessions, options)
        found = look(first.root, tags, stack.enter_context(engine(first)))
        entries = [*found.entries, *(caches(first.root) if options.cache else ())]
        chosen = choose(entries, older_than=older_than, keep=keep, elsewhere=found.elsewhere)
        told = shown(chosen, entries, found.elsewhere) if chosen else ""
        builders = sorted({each.environment.builder for each in sessions}) if options.cache else []
        for builder in builders:
            whose, most = builder or "the engine's own builder", report.size(reclaimable(builder, older_than))
            told += f"build cache of {whose}, which other projects may use too: up to {most}\n"
        if options.dry_run or not told:
            sys.stdout.write(told or "nothing to remove\n")
            return
        first.say(told.rstrip())
        if first.ask and not options.yes and not first.ask("Remove this?"):
            first.say("nothing was removed")
            return
        whole = older_than is None and keep is None  # then folders go as they are
        remove(
            first.root,
            [each for each in chosen if not whole or each.name in found.ids or not each.environment],
            found,
        )
        for builder in builders:
            prune(builder, older_than=older_than, keep=keep)
            sys.stdout.write(f"removed build cache of {builder or 'the engine'}\n")
        for session in sessions if whole else ():
            shutil.rmtree(session.results.folder)
            sys.stdout.write(f"removed build/{session.plan.environment}\n")


def _lock(stack: contextlib.ExitStack, sessions: Sequence[Session], options: Options) -> None:
    """Wait for builds and pushes that use what may go."""
    for session in sorted(sessions, key=lambda each: each.plan.environment):
        stack.enter_context(session.results.lock(session.say))
    if options.cache:
        lock = sessions[0].root / "build/.cache/push/.lock"
        stack.enter_context(locked(lock, sessions[0].say, "repository's pushes"))


@contextlib.contextmanager
def engine(session: Session) -> Iterator[Any]:
    """The engine's client; None when there is no engine, which is said."""
    there, problem = probe()
    if not there:
        session.say(f"images are left: {problem}")
        yield None
        return
    with contextlib.closing(docker_client()) as client:
        yield client


def remove(root: Path, chosen: Collection[Entry], found: Belongings) -> None:
    """Remove these entries; an image that is in use is left, and said."""
    for entry in chosen:
        if image := found.ids.get(entry.name):
            # By its names where it has some: with one of somebody else's it stays.
            names = {name: name for name in entry.name.split(", ")} if ":" in entry.name else {entry.name: image}
            for name, target in names.items():
                result = run(["docker", "image", "rm", target], check=False)
                problem = result.stderr.strip().splitlines()[-1:] if result.returncode else []
                sys.stdout.write(f"left {name}: {problem[0]}\n" if problem else f"removed {name}\n")
        elif entry.kind == "results":
            _remove_results(root / entry.name)
            sys.stdout.write(f"removed the results in {entry.name}\n")
        else:
            path = root / entry.name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            sys.stdout.write(f"removed {entry.name}\n")


def _remove_results(folder: Path) -> None:
    """Everything but what is an entry of its own, and the lock that is held."""
    for path in folder.iterdir():
        if path.name not in {*FOLDERS, "logs", ".lock"}:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def cache_argv(verb: str, builder: str, *, older_than: float | None = None, keep: int | None = None) -> list[str]:
    """`docker buildx du` or `prune` of a builder's cache."""
    argv = ["docker", "buildx", verb, *(["--builder", builder] if builder else [])]
    argv += ["--filter", f"until={older_than:.0f}s"] if older_than is not None else []
    argv += ["--force"] if verb == "prune" else []
    return [*argv, *(["--keep-storage", str(keep)] if keep is not None else [])]


def reclaimable(builder: str, older_than: float | None = None) -> int:
    """Bytes of a builder's cache that nothing uses; 0 when it does not answer."""
    text = run(cache_argv("du", builder, older_than=older_than), check=False).stdout
    found = re.search(r"^Reclaimable:\s+([0-9.]+)\s*([kMGT]?)i?B", text, re.MULTILINE)
    return int(float(found[1]) * BYTES.get(f"{found[2].lower()}b", 1)) if found else 0


def prune(builder: str, *, older_than: float | None = None, keep: int | None = None) -> None:
    """Remove a builder's cache: what was not used for that long (seconds), down to `keep` bytes."""
    run(cache_argv("prune", builder, older_than=older_than, keep=keep))
