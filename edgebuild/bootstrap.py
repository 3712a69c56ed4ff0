"""A base made on this machine from Debian's packages, for environments that pull no image."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from edgebuild import sums
from edgebuild.errors import BuildError
from edgebuild.host import Consent, install, mirror_of, read_os_release, read_sources
from edgebuild.locking import locked
from edgebuild.run import CommandFailed, run
from edgebuild.values import FIXED_EPOCH

INCLUDED = ("ca-certificates",)
DEBIAN = ("debian",)


def mmdebstrap_argv(suite: str, arch: str, target: Path, mirror: str) -> list[str]:
    """The call that writes the base; without a mirror mmdebstrap uses its own default."""
    argv = ["mmdebstrap", "--variant=minbase", f"--architectures={arch}", f"--include={','.join(INCLUDED)}"]
    argv += ["--quiet", suite, str(target)]
    return [*argv, mirror] if mirror else argv


def missing_packages(distribution: str, *, root: bool, there: Callable[[str], object]) -> list[str]:
    """What making the base needs here; `there` tells whether a program exists."""
    missing = []
    if not there("mmdebstrap"):
        missing = ["mmdebstrap"] if distribution in DEBIAN else ["mmdebstrap", "debian-archive-keyring"]
    if not root and not there("newuidmap"):
        missing.append("uidmap")  # for a root file system made without being root
    return missing


def bootstrap_base(folder: Path, *, suite: str, arch: str, consent: Consent, mirror: str = "") -> Path:
    """`folder`/base.tar: a Debian root file system; made once, then kept. Raises BuildError or ToolError.

    Its packages come from `mirror`, else from where this machine's own do.
    """
    tar, made_from = folder / "base.tar", folder / "made-from.json"
    distribution = read_os_release().get("ID", "")
    own = mirror_of(read_sources(), read_os_release().get("VERSION_CODENAME", "")) if distribution in DEBIAN else None
    address = mirror or (own.uri if own else "")
    argv = mmdebstrap_argv(suite, arch, Path("base.tar"), address)
    recipe = {"argv": argv, "epoch": FIXED_EPOCH}
    with locked(folder / ".lock", consent.say, "base"):  # environments share it
        for left in folder.glob("partial-*"):
            left.unlink()
        problem = damage(tar, made_from, recipe)
        if not problem:
            return tar
        if tar.exists():
            consent.say(f"{tar}: {problem}; it is made anew")
        if missing := missing_packages(distribution, root=os.geteuid() == 0, there=shutil.which):
            why = f"{' and '.join(missing)} not installed; the base of this environment is made with it"
            install(missing, why, consent)
        consent.say(f"making Debian {suite} ({arch}) from packages; this is kept for later builds")
        partial = folder / f"partial-{os.getpid()}.tar"
        try:
            run(
                mmdebstrap_argv(suite, arch, partial, address),
                env={"SOURCE_DATE_EPOCH": str(FIXED_EPOCH), "DEBIAN_FRONTEND": "noninteractive"},
            )
            digest = sums.digest(partial)
            made_from.unlink(missing_ok=True)
            partial.replace(tar)
            made_from.write_text(json.dumps({"recipe": recipe, "sha256": digest}) + "\n", encoding="utf-8")
        except CommandFailed as error:
            raise BuildError(f"Debian {suite} could not be made: {error}", hint="./inv doctor") from error
        finally:
            partial.unlink(missing_ok=True)
    return tar


def forget_base(folder: Path) -> None:
    """Have the next bootstrap_base make it anew, from what the archive has then."""
    (folder / "made-from.json").unlink(missing_ok=True)


def damage(tar: Path, made_from: Path, recipe: Mapping[str, object]) -> str:
    """Why this base cannot be used; empty when it is, byte for byte, what was made from the recipe."""
    try:
        made = json.loads(made_from.read_text(encoding="utf-8"))
        digest = made["sha256"]
        if made["recipe"] != recipe:
            return "it was made from another recipe"
        found = sums.digest(tar)
    except (OSError, ValueError, TypeError, KeyError):
        return f"{made_from.name} or the base itself cannot be read"
    return "" if found == digest else "it is damaged: its SHA-256 is not the one that was written down"


def recorded_digest(folder: Path) -> str:
    """The SHA-256 that base.tar had when it was made; empty when that cannot be read."""
    try:
        return str(json.loads((folder / "made-from.json").read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, TypeError, KeyError):
        return ""
