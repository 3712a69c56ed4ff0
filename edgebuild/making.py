"""The making of base and ISO in a staging folder: each step of a build, for recipes to put together."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from edgebuild import gate, render, respin
from edgebuild.bootstrap import bootstrap_base, recorded_digest
from edgebuild.engine import ensure_engine
from edgebuild.errors import BuildError
from edgebuild.images import Work, build_images
from edgebuild.inputs import Inputs
from edgebuild.iso import IsoRequest, assemble
from edgebuild.leftovers import forget_image, remove_containers
from edgebuild.lock import lock_path
from edgebuild.padding import padded
from edgebuild.results import Artifact
from edgebuild.session import DEFAULT_PASSWORD, Prepared, Session

BOOT_TREE_STAGES = ("boot-tree-files", "boot-tree")


def bootstrap(session: Session) -> None:
    """The base, where it is made on this machine. Raises BuildError when it is not the one that is locked."""
    os_ = session.environment.os
    if not os_.bootstrap:
        return
    folder = session.root / render.bootstrap_folder(session.environment)
    mirror = session.environment.package_mirrors.get(os_.distribution, "")
    bootstrap_base(folder, suite=os_.bootstrap, arch=os_.arch, consent=session.consent, mirror=mirror)
    if session.lock and session.lock.base and (found := recorded_digest(folder)) != session.lock.base:
        name = session.plan.environment
        raise BuildError(
            f"the base made from Debian's packages is another one than {lock_path(name)} has: "
            f"its SHA-256 is {found}, locked is {session.lock.base}",
            hint=f"Debian's archive has moved on: ./inv lock --env {name} --update",
        )


def write_texts(texts: Mapping[str, str], folder: Path) -> None:
    """Each text as a file of this name in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def build_sound_iso(
    session: Session, prepared: Prepared, staging: Path, artifacts: list[Artifact], *, again: bool = False
) -> Artifact:
    """The ISO, checked; where the engine has damaged the boot tree since it was made, from one made anew.

    That one then stands in `artifacts`.
    """
    boot_tree = next(each for each in artifacts if each.kind == "boot-tree")
    try:
        return build_iso(session, prepared, staging, boot_tree.digest, again=again)
    except gate.DamagedBootTree as error:
        session.say(f"{error.message}; making it anew")
    (staging / f"{session.environment.iso.name}.iso").unlink()
    forget_image(boot_tree.digest, BOOT_TREE_STAGES, builder=session.environment.builder)
    targets = session.plan.of_kind("boot-tree")
    engine = ensure_engine(session.root, session.consent)
    [built] = build_images([Work(session, prepared, staging, targets, engine)], fresh=BOOT_TREE_STAGES)
    [fresh] = built.artifacts
    artifacts[artifacts.index(boot_tree)] = fresh
    return build_iso(session, prepared, staging, fresh.digest, again=again)


def build_iso(
    session: Session, prepared: Prepared, staging: Path, boot_tree: str, *, again: bool = False
) -> Artifact:
    """The ISO from the boot tree (an image's digest) and this site's files, checked.

    Not `again`, it may be a copy of the last ISO with other site files in it.
    """
    environment, inputs = session.environment, prepared.inputs
    target = session.plan.iso
    path = staging / f"{environment.iso.name}.iso"
    session.say(f"putting together {path.name}")
    if "user_password" not in prepared.secret_values:
        session.say(
            f"note: {environment.user.name} has the guide's password, {DEFAULT_PASSWORD}; set secrets.user_password"
        )
    # Not in /tmp: what a killed run leaves of it goes with the next run.
    with tempfile.TemporaryDirectory(prefix=".site-", dir=staging) as folder:
        texts = {"user-data": prepared.user_data, "grub.cfg": prepared.texts["grub.cfg"]}
        site = site_folder(Path(folder), {name: padded(text.encode()) for name, text in texts.items()})
        request = request_iso(session, inputs, boot_tree, site)
        made = None if again else respin.respin(session, request, path)
        if made is None:
            remove_containers(session.results.folder, session.say)
            result = assemble(request, path)
            made = result, gate.check_iso_of(session, request, result)
        result, found = made
        respin.remember(session, request, result)
    return Artifact(
        name=target.name,
        kind=target.kind,
        path=target.path,
        digest=f"sha256:{result.sha256}",
        size_bytes=result.size_bytes,
        seconds=round(result.seconds, 2),
        **found,
    )


def site_folder(folder: Path, texts: Mapping[str, bytes]) -> Path:
    """A site's texts as they stand on the ISO, for this user only, in `folder`."""
    for name, text in texts.items():
        (folder / name).touch(mode=0o600)
        (folder / name).write_bytes(text)
    return folder


def request_iso(session: Session, inputs: Inputs, boot_tree: str, site: Path) -> IsoRequest:
    """The ISO of this environment with the user-data and the boot menu in `site`."""
    environment, root = session.environment, session.root
    return IsoRequest(
        image=boot_tree,
        arch=environment.os.arch,
        grub_cfg=site / "grub.cfg",
        user_data=site / "user-data",
        content=tuple(root / each for each in inputs.content),
        cluster_definition=root / inputs.cluster_definition if inputs.cluster_definition else None,
        overlay=root / "overlay/files-iso" if inputs.overlay_iso else None,
        epoch=environment.iso.epoch,
    )
