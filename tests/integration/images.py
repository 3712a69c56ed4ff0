"""Looking into what was built: files of images and of ISOs."""

import json
from pathlib import Path
from typing import Any

from edgebuild.checking import boot_key
from edgebuild.results import Results
from edgebuild.run import run


def look(image: str, script: str) -> str:
    """What a shell in the image prints."""
    argv = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "/bin/sh", image, "-euc", script]
    return run(argv).stdout


def inspect(image: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(["docker", "image", "inspect", image]).stdout)[0]
    return found


def in_tools(iso: Path, image: str, script: str) -> str:
    """Run a script with the ISO at /iso.iso, in the tools of a boot tree's image."""
    argv = ["docker", "run", "--rm", "--network", "none", "-v", f"{iso.resolve()}:/iso.iso:ro", image]
    return run([*argv, "bash", "-euo", "pipefail", "-c", script]).stdout


def iso_text(iso: Path, image: str, path: str) -> str:
    """A file of the ISO."""
    return in_tools(
        iso, image, f"xorriso -osirrox on -indev /iso.iso -extract '{path}' /tmp/f 2>/dev/null && cat /tmp/f"
    )


def note_boots(results: Results) -> None:
    """Note that the ISO of the last set has booted by both kinds of firmware."""
    iso = results.artifact("iso")
    assert iso
    for firmware in ("bios", "uefi"):
        key = boot_key(iso.digest.removeprefix("sha256:"), firmware, "cd")
        results.records.add("boots", key, when="2026-01-01 00:00 UTC")
