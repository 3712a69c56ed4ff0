"""`inv verify --rebuild`: the ISO once more, without cache and from another folder; its bytes must be the same."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgebuild import making, squashfs
from edgebuild.bake import ALL
from edgebuild.bootstrap import recorded_digest
from edgebuild.engine import ensure_engine
from edgebuild.errors import InputError
from edgebuild.images import Work, build_images
from edgebuild.isofile import AREA_PADDING, read_iso
from edgebuild.render import bootstrap_folder
from edgebuild.results import Artifact
from edgebuild.run import run
from edgebuild.session import Prepared, Session, prepare
from edgebuild.structure import ROOT
from edgebuild.verify import Finding

LEFT_OUT = (".git", ".venv", "build", ".nox", ".hypothesis", "__pycache__", ".*_cache", "content-*")
NAMED = 40  # files that a report names


def rebuild(session: Session) -> list[Finding]:
    """Build boot tree and ISO again, and compare them with the last set's. The lock must be held.

    Raises InputError when there is no ISO, or when it was made from other inputs than there are now.
    """
    known = session.results.artifact(session.plan.iso.name)
    if known is None:
        raise InputError("there is no ISO to compare with", hint=f"./inv iso --env {session.plan.environment}")
    engine = ensure_engine(session.root, session.consent)
    with session.results.staging() as staging:
        other = replace(session, root=copy_repository(session.root, staging / "another-folder"))
        other.results.folder.mkdir(parents=True)
        other.results.logs.symlink_to(session.results.logs)  # they are to stay
        prepared = prepare(other, with_secrets=True)
        _check_inputs(session, prepared)
        making.bootstrap(other)
        making.write_texts(prepared.texts, staging / "inputs")
        session.say("building boot tree and ISO again, without cache and in another folder")
        [built] = build_images([Work(other, prepared, staging, session.plan.of_kind("boot-tree"), engine)], fresh=ALL)
        artifacts = built.artifacts
        try:
            iso = making.build_sound_iso(other, prepared, staging, artifacts)
            return [*_base_finding(session, other), _compare(session, known, iso, staging)]
        finally:
            _forget(session, artifacts)


def copy_repository(root: Path, target: Path) -> Path:
    """A copy of everything that a build may read; content bundles, which are only read, stay where they are."""
    shutil.copytree(root, target, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for bundle in root.glob("content-*"):
        (target / bundle.name).symlink_to(bundle)
    return target


def _check_inputs(session: Session, prepared: Prepared) -> None:
    last = session.results.current / "inputs"
    changed = [
        name
        for name, text in prepared.texts.items()
        if not (last / name).exists() or (last / name).read_text(encoding="utf-8") != text
    ]
    if changed:
        raise InputError(
            f"the ISO was made from other inputs than there are now: {', '.join(changed)} differ",
            hint=f"./inv build-all-images --env {session.plan.environment}, then compare",
        )


def _base_finding(session: Session, other: Session) -> Iterator[Finding]:
    """Whether the base that is made on this machine came out the same."""
    if session.environment.os.bootstrap:
        folder = bootstrap_folder(session.environment)
        first, second = recorded_digest(session.root / folder), recorded_digest(other.root / folder)
        problems = () if first == second else (f"it is {second}, and was {first}: its packages have moved on",)
        yield Finding("base.tar", "made again from packages", problems)


def _compare(session: Session, known: Artifact, iso: Artifact, staging: Path) -> Finding:
    shown = f"{session.environment.iso.name}.iso"
    if iso.digest == known.digest:
        return Finding(shown, f"identical bytes: {known.size_bytes} bytes, {known.digest}")
    first, second = session.results.current / shown, staging / shown
    return Finding(shown, "built again", tuple(_differences(first, second, known, iso)))


def _differences(first: Path, second: Path, known: Artifact, iso: Artifact) -> Iterator[str]:
    """The parts that differ, and inside the root file system the files."""
    before, after = ({part["name"]: part for part in each.contents or ()} for each in (known, iso))
    found = False
    for name in sorted(before.keys() | after.keys()):
        if _hash(before.get(name)) == _hash(after.get(name)):
            continue
        found = True
        yield f"{name}: differs from the first build"
        if name == ROOT and name in before and name in after:
            trees = [dict(squashfs.entries(path, read_iso(path).files[ROOT][0])) for path in (first, second)]
            lines = list(squashfs.differences(*trees))
            yield from (f"{ROOT}{line}" for line in lines[:NAMED])
            if len(lines) > NAMED:
                yield f"{ROOT}: and {len(lines) - NAMED} more files"
    if not found:
        yield f"{AREA_PADDING}: differs from the first build"


def _hash(part: Any) -> str:
    return str(part["sha256"]) if part else ""


def _forget(session: Session, artifacts: list[Artifact]) -> None:
    """Remove the images made here, unless they came out as those that are kept."""
    kept = {each.digest for each in session.results.artifacts()}
    for each in artifacts:
        if each.digest not in kept:
            run(["docker", "image", "rm", each.digest], check=False)
