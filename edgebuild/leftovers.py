"""Containers of ours that outlived their run: somebody has killed the docker client together with us."""

import json
from collections.abc import Callable
from pathlib import Path

from edgebuild.container import LABEL
from edgebuild.run import run


def remove_containers(folder: Path, say: Callable[[str], None]) -> None:
    """Remove those that have something of this results folder mounted; for who holds the folder's lock."""
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
