"""What must go from the engine: containers that outlived their run, and what its storage has damaged."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from edgebuild.container import LABEL
from edgebuild.run import run


def remove_containers(folder: Path, say: Callable[[str], None]) -> None:
    """Remove those that have something of this results folder mounted; for who holds the folder's lock.

    They are there when somebody has killed the docker client together with us.
    """
    ids = run(["docker", "ps", "--all", "--quiet", "--filter", f"label={LABEL}"], check=False).stdout.split()
    if not ids:
        return
    found = json.loads(run(["docker", "container", "inspect", *ids], check=False).stdout or "[]")
    ours = {folder, folder.resolve()}
    left = [
        each["Id"]
        for each in found
        if any(ours & set(Path(mount.get("Source", "")).parents) for mount in each["Mounts"])
    ]
    if left:
        say(f"removing {len(left)} of our containers that a killed run has left")
        run(["docker", "rm", "--force", *left], check=False)


def forget_image(digest: str, stages: Sequence[str], *, builder: str) -> None:
    """Remove an image and the cache of the stages that made it.

    The engine never writes a layer again that it has; so what it has damaged must go before it is made anew. So must
    images without a name that hold the same layers: those of earlier builds.
    """
    run(["docker", "image", "rm", "--force", digest, *_unnamed_like(digest, layers=len(stages))], check=False)
    options = ["--builder", builder] if builder else []
    listed = run(["docker", "buildx", "du", "--verbose", *options], check=False).stdout
    names = "|".join(map(re.escape, stages))
    records = [
        found[1]
        for block in listed.split("\n\n")
        if re.search(rf"^Description:.*\[({names}) ", block, re.MULTILINE)
        and (found := re.search(r"^ID:\s*(\w+)", block, re.MULTILINE))
    ]
    for record in [*records, *reversed(records)]:  # one that another stands on goes after that one only
        run(["docker", "buildx", "prune", "--all", "--force", "--filter", f"id={record}", *options], check=False)


def _unnamed_like(digest: str, *, layers: int) -> list[str]:
    """Images without a name that have any of the topmost layers of this one."""
    unnamed = run(["docker", "image", "ls", "--filter", "dangling=true", "--quiet", "--no-trunc"], check=False).stdout
    found = run(["docker", "image", "inspect", digest, *unnamed.split()], check=False).stdout
    stacks = {entry["Id"]: entry["RootFS"].get("Layers") or [] for entry in json.loads(found or "[]")}
    own = set(stacks.get(digest, [])[-layers:])
    return [other for other, stack in stacks.items() if other != digest and own & set(stack)]
