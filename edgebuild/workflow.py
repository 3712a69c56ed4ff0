"""The recipes that make results: each one straight line of steps, every step named as it starts."""

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgebuild import arguments, documents, gate, making, render, report, space, sums
from edgebuild.config import check_name, load_environment
from edgebuild.engine import ensure_engine, probe
from edgebuild.errors import InputError, VerificationError
from edgebuild.images import Work, bake_targets, build_images
from edgebuild.leftovers import remove_containers
from edgebuild.plan import Kind
from edgebuild.results import Artifact
from edgebuild.run import run
from edgebuild.scan import search_set
from edgebuild.seal import finish_switch, publish
from edgebuild.session import Prepared, Session, prepare


def build(session: Session, kinds: Sequence[Kind]) -> None:
    """Build the targets of these kinds, and publish the results in one step."""
    needs_secrets = "iso" in kinds or ("provider-image" in kinds and bool(session.environment.secrets.luet_auth))
    prepared = prepare(session, with_secrets=needs_secrets)
    targets = [target for target in session.plan.targets if target.kind in kinds]
    signer = documents.signer_of(session)
    started, began = time.monotonic(), time.time()
    with session.results.lock(session.say):
        engine = ensure_engine(session.root, session.consent)
        remove_containers(session.results.folder, session.say)
        finish_switch(session)
        disks = space.disks(session, prepared.inputs, iso="iso" in kinds)
        space.check(disks)
        making.bootstrap(session)
        with space.watched(disks), session.results.staging() as staging:
            making.write_texts(prepared.texts, staging / "inputs")
            images = [each for each in targets if each.kind != "iso"]
            [built] = build_images([Work(session, prepared, staging, images)])
            artifacts = built.artifacts
            gate.check_images(session, artifacts)
            if "iso" in kinds:
                artifacts.append(making.build_sound_iso(session, prepared, staging, artifacts))
            if "provider-image" in kinds:
                profile_text = render.render_profile(session.environment)
                (staging / "cluster-profile.yaml").write_text(profile_text, encoding="utf-8")
            made = documents.Run(engine, began, time.time(), built.upstream)
            documents.write(session, staging, artifacts, made, signer)
            drop = ("*.iso", "*.iso.sha256") if "iso" in kinds else ()
            searched: list[str] = []
            publish(
                session,
                staging,
                artifacts,
                drop=drop,
                signer=signer,
                look=lambda folder: searched.append(search_set(session, prepared, folder, artifacts)),
            )
    _report(session, kinds, artifacts, searched[0], time.monotonic() - started)


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


def _report(
    session: Session, kinds: Sequence[Kind], artifacts: Sequence[Artifact], searched: str, seconds: float
) -> None:
    """What was made, on standard output."""
    rows = [("artifact", "size", "where")]
    rows += [(each.name, report.size(each.size_bytes), each.path or each.reference or "") for each in artifacts]
    sys.stdout.write("\n" + report.table(rows))
    folder = f"build/{session.plan.environment}"
    if "iso" in kinds:
        sys.stdout.write(f"\nchecksum:  {session.plan.iso.path}.sha256\n")
    if session.environment.kubernetes.payload == "none" and "provider-image" in kinds:
        sys.stdout.write(f"note:      {report.NO_PAYLOAD}\n")
    if searched:
        sys.stdout.write(f"secrets:   {searched}\n")
    sys.stdout.write(f"artifacts: {folder}/artifacts.json\n")
    if "provider-image" in kinds:
        sys.stdout.write(f"profile:   {folder}/cluster-profile.yaml\n\n{render.render_profile(session.environment)}")
    session.say(f"done in {seconds:.1f} s")


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


def clean(session: Session) -> None:
    """Remove the environment's results, and its images from the engine."""
    folder = session.results.folder
    with session.results.lock(session.say):
        engine, problem = probe()
        if engine:
            tags = [tag for target in session.plan.targets for tag in target.tags]
            tags += [f"edgebuild/{stage}:{session.plan.environment}" for stage in (render.TOOLS, render.BOOT_TOOLS)]
            there = [tag for tag in tags if run(["docker", "image", "inspect", tag], check=False).returncode == 0]
            if there:
                run(["docker", "image", "rm", *there])
            for tag in there:
                sys.stdout.write(f"removed {tag}\n")
        else:
            session.say(f"images are left: {problem}")
        shutil.rmtree(folder)
    sys.stdout.write(f"removed {_shown(session, folder)}\n")


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
