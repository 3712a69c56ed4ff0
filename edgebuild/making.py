"""The making of images and ISO in a staging folder: each step of a build, for recipes to put together."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgebuild import gate, render
from edgebuild.bake import BakeRequest, BakeResult, bake
from edgebuild.bootstrap import bootstrap_base, recorded_digest
from edgebuild.errors import BuildError
from edgebuild.iso import IsoRequest, assemble
from edgebuild.leftovers import forget_image
from edgebuild.lock import lock_path
from edgebuild.plan import Target
from edgebuild.results import Artifact
from edgebuild.run import run
from edgebuild.session import DEFAULT_PASSWORD, Prepared, Session
from edgebuild.view import open_view

BOOT_TREE_STAGES = ("boot-tree-files", "boot-tree")


def bootstrap(session: Session) -> None:
    """The base, where it is made on this machine. Raises BuildError when it is not the one that is locked."""
    os_ = session.environment.os
    if not os_.bootstrap:
        return
    folder = session.root / render.bootstrap_folder(session.environment)
    bootstrap_base(folder, suite=os_.bootstrap, arch=os_.arch, consent=session.consent)
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


def build_images(
    session: Session, prepared: Prepared, staging: Path, targets: Sequence[Target], *, fresh: tuple[str, ...] = ()
) -> tuple[list[Artifact], Mapping[str, str]]:
    """One BuildKit call for all of them. Also tells the digests of the images that they stand on."""
    names = tuple(target.name for target in targets)
    untagged = dict.fromkeys(names, "")  # they get their names with the set that they belong to
    result = bake_targets(session, prepared, staging, names, fresh=fresh, tags=untagged)
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


def bake_targets(
    session: Session,
    prepared: Prepared,
    staging: Path,
    names: tuple[str, ...],
    *,
    fresh: tuple[str, ...] = (),
    tags: Mapping[str, str] | None = None,
) -> BakeResult:
    """One call of bake, with a log of its own. `tags` gives targets other names than the bake file does."""
    log = session.results.new_log("build")
    shown = ", ".join(names) if len(names) < 8 else f"{len(names)} images"
    session.say(f"building {shown}; log: {log.relative_to(session.root)}")
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


def build_sound_iso(session: Session, prepared: Prepared, staging: Path, artifacts: list[Artifact]) -> Artifact:
    """The ISO, checked; where the engine has damaged the boot tree since it was made, from one made anew.

    That one then stands in `artifacts`.
    """
    boot_tree = next(each for each in artifacts if each.kind == "boot-tree")
    try:
        return build_iso(session, prepared, staging, boot_tree.digest)
    except gate.DamagedBootTree as error:
        session.say(f"{error.message}; making it anew")
    (staging / f"{session.environment.iso.name}.iso").unlink()
    forget_image(boot_tree.digest, BOOT_TREE_STAGES, builder=session.environment.builder)
    targets = session.plan.of_kind("boot-tree")
    [fresh], _ = build_images(session, prepared, staging, targets, fresh=BOOT_TREE_STAGES)
    artifacts[artifacts.index(boot_tree)] = fresh
    return build_iso(session, prepared, staging, fresh.digest)


def build_iso(session: Session, prepared: Prepared, staging: Path, boot_tree: str) -> Artifact:
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
