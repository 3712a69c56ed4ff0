"""A base made on this machine from Debian's packages, for environments that pull no image."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from edgebuild.errors import BuildError
from edgebuild.host import Consent, install, mirror_of, read_os_release, read_sources
from edgebuild.model import FIXED_EPOCH
from edgebuild.run import CommandFailed, run

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


def bootstrap_base(folder: Path, *, suite: str, arch: str, consent: Consent) -> Path:
    """`folder`/base.tar: a Debian root file system; made once, then kept. Raises BuildError or ToolError."""
    tar, made_from = folder / "base.tar", folder / "made-from.json"
    os_release = read_os_release()
    own = (
        mirror_of(read_sources(), os_release.get("VERSION_CODENAME", "")) if os_release.get("ID") in DEBIAN else None
    )
    recipe = {"argv": mmdebstrap_argv(suite, arch, Path("base.tar"), own.uri if own else ""), "epoch": FIXED_EPOCH}
    if tar.exists() and made_from.exists() and json.loads(made_from.read_text()).get("recipe") == recipe:
        return tar
    if missing := missing_packages(os_release.get("ID", ""), root=os.geteuid() == 0, there=shutil.which):
        install(
            missing, f"{' and '.join(missing)} not installed; the base of this environment is made with it", consent
        )
    consent.say(f"making Debian {suite} ({arch}) from packages; this is kept for later builds")
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"partial-{os.getpid()}.tar"
    try:
        run(
            mmdebstrap_argv(suite, arch, partial, own.uri if own else ""),
            env={"SOURCE_DATE_EPOCH": str(FIXED_EPOCH), "DEBIAN_FRONTEND": "noninteractive"},
        )
        with partial.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        made_from.unlink(missing_ok=True)
        partial.replace(tar)
        made_from.write_text(json.dumps({"recipe": recipe, "sha256": digest}) + "\n")
    except CommandFailed as error:
        raise BuildError(f"Debian {suite} could not be made: {error}", hint="./inv doctor") from error
    finally:
        partial.unlink(missing_ok=True)
    return tar
