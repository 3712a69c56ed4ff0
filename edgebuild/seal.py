"""The last step of a result set: the checksums of all its files, the signature over them, the names of its images."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from edgebuild import sums
from edgebuild.engine import probe
from edgebuild.errors import ToolError, VerificationError
from edgebuild.results import Artifact
from edgebuild.run import run
from edgebuild.session import Session
from edgebuild.signing import Signer


def publish(
    session: Session,
    staging: Path,
    artifacts: Sequence[Artifact] = (),
    *,
    drop: Sequence[str] = (),
    signer: Signer | None = None,
    look: Callable[[Path], None] = lambda _: None,
    named: Sequence[Artifact] = (),
) -> None:
    """Complete, seal and show the set in `staging`; `look` may refuse it before it is shown.

    `artifacts` are new; they and those in `named` get their names in the engine.
    """

    def finish(folder: Path) -> None:
        seal(session, folder, artifacts, signer)
        look(folder)

    session.results.publish(
        staging,
        session.plan.names,
        artifacts,
        drop=drop,
        finish=finish,
        follow=lambda: tag_images([*artifacts, *named]),
    )


def finish_switch(session: Session) -> None:
    """Do what a run was killed before: its set is shown, and its images have not all got their names."""
    if session.results.unfinished.exists():
        tag_images(session.results.readable_artifacts())
        session.results.unfinished.unlink()


def tag_images(artifacts: Sequence[Artifact]) -> None:
    """Give the set's images their names in the engine: only now, for these must not lead to what is not shown.

    An image that the engine has no more gets none. Raises ToolError without an engine.
    """
    images = [each for each in artifacts if each.reference]
    if not images:
        return
    result = run(["docker", "image", "inspect", *(each.digest for each in images)], check=False)
    if result.returncode and not probe()[0]:
        raise ToolError(f"the engine went away: {result.stderr.strip()}", hint="./inv doctor, then build again")
    names = {entry["Id"]: entry["RepoTags"] for entry in json.loads(result.stdout)}
    for image in images:
        if image.digest in names and image.reference not in names[image.digest]:
            run(["docker", "image", "tag", image.digest, str(image.reference)])


def seal(session: Session, folder: Path, artifacts: Sequence[Artifact], signer: Signer | None) -> None:
    """Write SHA256SUMS of a complete set; what this run has hashed, or the last set's sums tell, is not read.

    Without a signer the set is not signed: the last one's signature is not of this one.
    """
    known = {Path(each.path).name: each.digest.removeprefix("sha256:") for each in artifacts if each.path}
    sums.write(folder, {**_kept(session.results.current, folder), **known})
    signature = folder / sums.SIGNATURE
    if signature.exists() and signer is None:
        session.say("note: the results have changed and are not signed any more; a build signs them")
    signature.unlink(missing_ok=True)
    if signer:
        signature.write_text(signer.sign((folder / sums.NAME).read_bytes()) + "\n", encoding="ascii")


def _kept(last: Path, folder: Path) -> dict[str, str]:
    """The checksums of files that this set shares with the last one: links to the same bytes."""
    try:
        written = sums.read(last)
    except VerificationError:
        return {}
    return {
        name: digest
        for name, digest in written.items()
        if (last / name).exists() and (folder / name).exists() and (last / name).samefile(folder / name)
    }
