"""The commit that is checked out: its date stands for the date of everything that is built from it."""

from collections.abc import Callable
from pathlib import Path

from edgebuild.errors import EdgebuildError
from edgebuild.model import Environment
from edgebuild.run import run
from edgebuild.values import FIXED_EPOCH


def commit_date(root: Path, say: Callable[[str], None]) -> int:
    """Seconds since 1970 of the repository's checked-out commit; without one a fixed date, said if Git is there."""
    if not (root / ".git").exists():  # an unpacked archive; a repository further up is not this one
        return FIXED_EPOCH
    argv = ["git", "-c", "safe.directory=*", "show", "--no-patch", "--no-show-signature", "--format=%ct", "HEAD"]
    try:
        return int(run(argv, cwd=root).stdout)
    except (EdgebuildError, ValueError) as error:
        say(f"note: Git tells no commit, so dates in the ISO are those of 2024-01-01: {error}")
        return FIXED_EPOCH


def dated(environment: Environment, root: Path, say: Callable[[str], None]) -> Environment:
    """The environment with a number as its `iso.epoch`."""
    if environment.iso.epoch_:
        return environment
    iso = environment.iso.model_copy(update={"epoch_": commit_date(root, say)})
    return environment.model_copy(update={"iso": iso})
