"""The recipes that make results: each one straight line of steps, every step named as it starts."""

import hashlib
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgebuild import arguments, documents, gate, render, report, space
from edgebuild.bake import BakeRequest, BakeResult, bake
from edgebuild.bootstrap import bootstrap_base
from edgebuild.config import load_environment
from edgebuild.engine import ensure_engine, probe
from edgebuild.errors import InputError, VerificationError
from edgebuild.iso import IsoRequest, assemble
from edgebuild.leftovers import remove_containers
from edgebuild.plan import Kind, Target
from edgebuild.results import Artifact
from edgebuild.run import run
from edgebuild.scan import search_set
from edgebuild.seal import finish_switch, publish
from edgebuild.session import DEFAULT_PASSWORD, Prepared, Session, prepare
from edgebuild.view import open_view

BOOT_TREE_STAGES = ("boot-tree-files", "boot-tree")


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
        _bootstrap(session)
        with space.watched(disks), session.results.staging() as staging:
            _write_texts(prepared.texts, staging / "inputs")
            artifacts, upstream = _build_images(
                session, prepared, staging, [each for each in targets if each.kind != "iso"]
            )
            gate.check_images(session, artifacts)
            if "iso" in kinds:
                artifacts.append(_build_sound_iso(session, prepared, staging, artifacts))
            if "provider-image" in kinds:
                profile_text = render.render_profile(session.environment)
                (staging / "cluster-profile.yaml").write_text(profile_text, encoding="utf-8")
            made = documents.Run(engine, began, time.time(), upstream)
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
    ensure_engine(session.root, session.consent)
    remove_containers(session.results.folder, session.say)
    _bootstrap(session)
    with session.results.staging() as staging:
        _write_texts(prepared.texts, staging / "inputs")
        _bake(session, prepared, staging, (render.BOOT_TOOLS,))


def _bootstrap(session: Session) -> None:
    os_ = session.environment.os
    if os_.bootstrap:
        bootstrap_base(
            session.root / render.bootstrap_folder(session.environment),
            suite=os_.bootstrap,
            arch=os_.arch,
            consent=session.consent,
        )


def _write_texts(texts: Mapping[str, str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def _build_images(
    session: Session, prepared: Prepared, staging: Path, targets: Sequence[Target], *, fresh: tuple[str, ...] = ()
) -> tuple[list[Artifact], Mapping[str, str]]:
    """One BuildKit call for all of them. Also tells the digests of the images that they stand on."""
    names = tuple(target.name for target in targets)
    untagged = dict.fromkeys(names, "")  # they get their names with the set that they belong to
    result = _bake(session, prepared, staging, names, fresh=fresh, tags=untagged)
    # By digest: another clone of the repository may give the tag to an image of its own at any time.
    sizes = _image_sizes([result.digests[name] for name in names])
    artifacts = [
        Artifact(
            name=target.name,
            kind=target.kind,
            reference=target.tags[0],
            digest=result.digests[target.name],
            size_bytes=sizes[result.digests[target.name]],
            seconds=round(result.seconds.get(target.name, 0.0), 2),
        )
        for target in targets
    ]
    return artifacts, result.upstream


def _bake(
    session: Session,
    prepared: Prepared,
    staging: Path,
    names: tuple[str, ...],
    *,
    fresh: tuple[str, ...] = (),
    tags: Mapping[str, str] | None = None,
) -> BakeResult:
    log = session.results.new_log("build")
    session.say(
        f"building {', '.join(names) if len(names) < 8 else f'{len(names)} images'}; log: {_shown(session, log)}"
    )
    environment = {}
    if value := prepared.secret_values.get("luet_auth"):
        environment["EDGEBUILD_SECRET_LUET_AUTH"] = value
    with open_view(names) as view:
        return bake(
            BakeRequest(
                file=staging / "inputs/docker-bake.json",
                targets=names,
                root=session.root,
                log=log,
                metadata=staging / ".metadata.json",
                builder=session.environment.builder,
                fresh=fresh,
                tags=tags or {},
                env=environment,
            ),
            view,
        )


def _image_sizes(digests: Sequence[str]) -> dict[str, int]:
    output = run(["docker", "image", "inspect", "--format", "{{.Size}}", *digests]).stdout
    return dict(zip(digests, map(int, output.split()), strict=True))


def _build_sound_iso(session: Session, prepared: Prepared, staging: Path, artifacts: list[Artifact]) -> Artifact:
    """The ISO, checked; where the engine has damaged the boot tree since it was made, from one made anew.

    That one then stands in `artifacts`.
    """
    boot_tree = next(each for each in artifacts if each.kind == "boot-tree")
    try:
        return _build_iso(session, prepared, staging, boot_tree.digest)
    except gate.DamagedBootTree as error:
        session.say(f"{error.message}; making it anew")
    (staging / f"{session.environment.iso.name}.iso").unlink()
    targets = session.plan.of_kind("boot-tree")
    [fresh], _ = _build_images(session, prepared, staging, targets, fresh=BOOT_TREE_STAGES)
    artifacts[artifacts.index(boot_tree)] = fresh
    return _build_iso(session, prepared, staging, fresh.digest)


def _build_iso(session: Session, prepared: Prepared, staging: Path, boot_tree: str) -> Artifact:
    """The ISO from the boot tree (an image's digest) and this site's files, checked."""
    environment, inputs, root = session.environment, prepared.inputs, session.root
    target = session.plan.iso
    path = staging / f"{environment.iso.name}.iso"
    session.say(f"putting together {path.name}")
    if "user_password" not in prepared.secret_values:
        session.say(
            f"note: {environment.user.name} has the guide's password, {DEFAULT_PASSWORD}; set secrets.user_password"
        )
    # Not in /tmp: what a killed run leaves of it goes with the next run.
    with tempfile.TemporaryDirectory(prefix=".site-", dir=staging) as folder:
        user_data = Path(folder) / "user-data"
        user_data.touch(mode=0o600)
        user_data.write_text(prepared.user_data, encoding="utf-8")
        request = IsoRequest(
            image=boot_tree,
            arch=environment.os.arch,
            grub_cfg=staging / "inputs/grub.cfg",
            user_data=user_data,
            content=tuple(root / each for each in inputs.content),
            cluster_definition=root / inputs.cluster_definition if inputs.cluster_definition else None,
            overlay=root / "overlay/files-iso" if inputs.overlay_iso else None,
            epoch=environment.iso.epoch,
        )
        result = assemble(request, path)
        found = gate.check_iso_of(session, request, result)
    return Artifact(
        name=target.name,
        kind=target.kind,
        path=target.path,
        digest=f"sha256:{result.sha256}",
        size_bytes=result.size_bytes,
        seconds=round(result.seconds, 2),
        **found,
    )


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
        _write_texts(prepared.texts, staging / "inputs")
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
    with iso.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
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
            tags.append(f"edgebuild/{render.BOOT_TOOLS}:{session.plan.environment}")
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
    if not name:
        sys.stdout.write(text)
        return
    target = root / "config" / f"{name}.yaml"
    if target.exists():
        raise InputError(f"config/{name}.yaml exists already", hint="choose another --name")
    target.write_text(text, encoding="utf-8")
    load_environment(root, name)
    sys.stdout.write(f"config/{name}.yaml\n")
