"""The short recipes around a build: each one straight line of steps, every step named as it starts."""

import sys
from collections.abc import Mapping
from pathlib import Path

from edgebuild import arguments, making, render, sums
from edgebuild.config import check_name, load_environment
from edgebuild.engine import ensure_engine
from edgebuild.errors import InputError, VerificationError
from edgebuild.images import bake_targets
from edgebuild.leftovers import remove_containers
from edgebuild.seal import publish
from edgebuild.session import Prepared, Session, prepare


def build_boot_tools(session: Session, prepared: Prepared) -> None:
    """The image with QEMU that the boot check runs in."""
    build_stages(session, prepared, (render.BOOT_TOOLS,))


def build_stages(
    session: Session, prepared: Prepared, names: tuple[str, ...], *, fresh: tuple[str, ...] = ()
) -> Mapping[str, str]:
    """Images for the engine only: their names to their digests. `fresh` stages are built whatever is cached."""
    ensure_engine(session.root, session.consent)
    remove_containers(session.results.folder, session.say)
    making.bootstrap(session)
    with session.results.staging() as staging:
        making.write_texts(prepared.texts, staging / "inputs")
        return bake_targets(session, prepared, staging, names, fresh=fresh).digests


def _shown(session: Session, path: Path) -> str:
    return str(path.relative_to(session.root))


def render_inputs(session: Session) -> None:
    """Write what would be built to build/<environment>/inputs/."""
    prepared = prepare(session, with_secrets=False)
    with session.results.lock(session.say), session.results.staging() as staging:
        making.write_texts(prepared.texts, staging / "inputs")
        publish(session, staging)
    for name in prepared.texts:
        sys.stdout.write(f"build/{session.plan.environment}/inputs/{name}\n")


def profile(session: Session) -> None:
    """Print the cluster profile and write it."""
    text = render.render_profile(session.environment)
    with session.results.lock(session.say), session.results.staging() as staging:
        (staging / "cluster-profile.yaml").write_text(text, encoding="utf-8")
        publish(session, staging)
    sys.stdout.write(text)
    session.say(f"written to build/{session.plan.environment}/cluster-profile.yaml")


def checksum(session: Session) -> None:
    """Read the ISO and compare it with its checksum file."""
    iso = session.results.current / f"{session.environment.iso.name}.iso"
    shown = session.plan.iso.path
    if not iso.exists():
        raise InputError(f"{shown} does not exist", hint=f"./inv iso --env {session.plan.environment}")
    digest = sums.digest(iso)
    written = iso.with_name(iso.name + ".sha256").read_text(encoding="ascii").split()[0]
    if digest != written:
        raise VerificationError(
            f"{shown} is not what was built: its SHA-256 is {digest}, and was {written}",
            hint=f"./inv iso --env {session.plan.environment}",
        )
    sys.stdout.write(f"{digest}  {shown}\n")


def import_arguments(root: Path, file: Path, name: str) -> None:
    """Print a CanvOS .arg file as an environment, or write it to config/<name>.yaml."""
    try:
        text = arguments.import_arg(file.read_text(encoding="utf-8"), source=str(file))
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 text: {error.reason} at byte {error.start}") from error
    if not name:
        sys.stdout.write(text)
        return
    check_name(name)
    target = root / "config" / f"{name}.yaml"
    if target.exists():
        raise InputError(f"config/{name}.yaml exists already", hint="choose another --name")
    target.write_text(text, encoding="utf-8")
    load_environment(root, name)
    sys.stdout.write(f"config/{name}.yaml\n")
