"""The last step of a result set: the checksums of all its files, and the signature over them."""

from collections.abc import Sequence
from pathlib import Path

from edgebuild import sums
from edgebuild.errors import VerificationError
from edgebuild.results import Artifact
from edgebuild.session import Session


def publish(session: Session, staging: Path, artifacts: Sequence[Artifact] = (), *, drop: Sequence[str] = ()) -> None:
    """Complete, seal and show the set in `staging`."""
    session.results.publish(
        staging,
        session.plan.names,
        artifacts,
        drop=drop,
        finish=lambda folder: seal(session, folder, artifacts),
    )


def seal(session: Session, folder: Path, artifacts: Sequence[Artifact]) -> None:
    """Write SHA256SUMS of a complete set; what this run has hashed, or the last set's sums tell, is not read."""
    known = {Path(each.path).name: each.digest.removeprefix("sha256:") for each in artifacts if each.path}
    sums.write(folder, {**_kept(session.results.current, folder), **known})


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
