"""What this repository holds on this machine: results, logs, fleets, images in the engine, caches. Looks only."""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker

from edgebuild import render
from edgebuild.clearance import Entry, Kind
from edgebuild.config import environment_names, load_environment
from edgebuild.errors import EdgebuildError
from edgebuild.localimages import layer_sizes, stacks, tagged
from edgebuild.madehere import made_here
from edgebuild.registry import engine_errors, find_image
from edgebuild.results import ARTIFACTS, Results
from edgebuild.session import Session

FOLDERS: dict[str, Kind] = {"sites": "fleet", "boot": "boot log"}


@dataclass(frozen=True)
class Belongings:
    """What there is. `elsewhere` are layers that images of others have too; `ids` are images', by entry's name."""

    entries: Sequence[Entry]
    elsewhere: frozenset[str] = frozenset()
    ids: Mapping[str, str] = field(default_factory=dict)


def look(root: Path, tags: Mapping[str, Collection[str]], client: Any) -> Belongings:
    """What belongs to these environments, each with the names that it gives to images; without client only files.

    An image that was built here, and has neither a name nor a place among the last results, is superseded.
    """
    now = time.time()
    files = [entry for environment in tags for entry in files_of(root, environment)]
    if client is None:
        return Belongings(files)
    current = {each.digest for environment in tags for each in _results(root, environment).readable_artifacts()}
    entries, ids, elsewhere = [], {}, set[str]()
    with engine_errors():
        for each in client.api.images():
            facts = find_image(client, each["Id"])
            if facts is None:  # somebody has just removed it
                continue
            id_, names = facts["Id"], set(facts.get("RepoTags") or [])
            environment = _owner(root, id_, names, tags)
            if environment is None:
                elsewhere |= set(stacks(facts["RootFS"].get("Layers") or []))
                continue
            given = sorted(names & set(tags[environment]))
            name = ", ".join(given) or id_[7:19]
            superseded = not names and id_ not in current
            kind: Kind = "superseded image" if superseded else "image"
            # With a name of somebody else's it stays, whatever it loses.
            layers = {} if names - set(given) else _layers(client, facts)
            since = tagged(facts) if names else float(made_here(root, id_).get("when", 0))
            ids[name] = id_
            entries.append(Entry(kind, name, environment, now - since, 0, superseded, layers))
    return Belongings([*files, *entries], frozenset(elsewhere), ids)


def _layers(client: Any, facts: Mapping[str, Any]) -> Mapping[str, int]:
    try:
        return layer_sizes(facts, client.api.history(facts["Id"]))
    except docker.errors.ImageNotFound:  # somebody has just removed it
        return {}


def _owner(root: Path, id_: str, names: Collection[str], tags: Mapping[str, Collection[str]]) -> str | None:
    """The environment whose image this is: by its names; one without any was noted when it was built."""
    for environment, given in tags.items():
        if not set(given).isdisjoint(names):
            return environment
    noted = made_here(root, id_).get("environment")
    return noted if not names and noted in tags else None


def own_tags(session: Session) -> list[str]:
    """The names that an environment gives to images."""
    tags = [tag for target in session.plan.targets for tag in target.tags]
    return tags + [f"edgebuild/{stage}:{session.plan.environment}" for stage in (render.TOOLS, render.BOOT_TOOLS)]


def files_of(root: Path, environment: str) -> list[Entry]:
    """Results, fleet and logs of an environment."""
    results = _results(root, environment)
    if not results.folder.is_dir():
        return []
    parts = [
        (kind, results.folder / folder) for folder, kind in FOLDERS.items() if (results.folder / folder).is_dir()
    ]
    parts += [("log", path) for path in sorted(results.logs.glob("*"))]
    artifacts = results.current / ARTIFACTS
    rest = [path for path in results.folder.iterdir() if path.name not in {*FOLDERS, results.logs.name}]
    written = _age(artifacts if artifacts.exists() else results.folder)
    entries = [Entry("results", f"build/{environment}", environment, written, disk_bytes(rest))]
    entries += [
        Entry(kind, str(path.relative_to(root)), environment, _age(path), disk_bytes([path])) for kind, path in parts
    ]
    return entries


def _results(root: Path, environment: str) -> Results:
    return Results(root / "build" / environment)


def caches(root: Path) -> list[Entry]:
    """What builds of all environments share and none needs now: bases of no environment, layers on their way."""
    needed, folder = _needed_bases(root), root / "build/.cache"
    unneeded = [path for path in sorted(folder.glob("bootstrap/*")) if needed is not None and path not in needed]
    found: list[tuple[Kind, Path]] = [("base", path) for path in unneeded]
    found += [("packed layer", path) for path in sorted(folder.glob("push/packed/*"))]
    return [Entry(kind, str(path.relative_to(root)), "", _age(path), disk_bytes([path])) for kind, path in found]


def _needed_bases(root: Path) -> set[Path] | None:
    """The bases of the environments in config/; None when one of them cannot be read: then any may be needed."""
    try:
        return {root / render.bootstrap_folder(load_environment(root, name)) for name in environment_names(root)}
    except EdgebuildError:
        return None


def disk_bytes(paths: Iterable[Path]) -> int:
    """What files and folders take on the disk; one that has several names counts once."""
    seen: dict[tuple[int, int], int] = {}
    for path in paths:
        for each in (path, *path.rglob("*")) if path.is_dir() and not path.is_symlink() else (path,):
            found = each.lstat()
            seen[found.st_dev, found.st_ino] = found.st_blocks * 512
    return sum(seen.values())


def _age(path: Path) -> float:
    """Seconds since it was last written."""
    return time.time() - path.stat().st_mtime
