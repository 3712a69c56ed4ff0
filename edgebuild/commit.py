"""The newest commit of what images are made of: its date stands for the date of everything that is built."""

from collections.abc import Callable
from pathlib import Path

from edgebuild.errors import EdgebuildError
from edgebuild.model import Environment
from edgebuild.run import run
from edgebuild.values import FIXED_EPOCH

# What images and boot tree are made of. Not an environment's file, so that one more version, or another user-data,
# leaves every date as it was.
PIPELINE = (
    *("Dockerfile.j2", "edgebuild/templates", "overlay/files", "certs"),
    *("config/defaults.yaml", "config/releases", "config/*.lock.yaml"),
)
GIT = ("git", "-c", "safe.directory=*", "-c", "log.showSignature=false")


def commit_date(root: Path, say: Callable[[str], None]) -> int:
    """Seconds since 1970 of the newest commit of what images are made of; without any a fixed date, said with Git."""
    if not (root / ".git").exists():  # an unpacked archive; a repository further up is not this one
        return FIXED_EPOCH
    newest = [*GIT, "log", "-1", "--format=%ct", "HEAD"]
    try:
        found = run([*newest, "--", *PIPELINE], cwd=root).stdout or run(newest, cwd=root).stdout
        if (root / ".git/shallow").exists():
            say("note: a shallow clone does not know the commit that dates images and ISO; git fetch --unshallow")
        return int(found)
    except (EdgebuildError, ValueError) as error:
        say(f"note: Git tells no commit, so dates in the ISO are those of 2024-01-01: {error}")
        return FIXED_EPOCH


def dated(environment: Environment, root: Path, say: Callable[[str], None]) -> Environment:
    """The environment with a number as its `iso.epoch`."""
    if environment.iso.epoch_:
        return environment
    iso = environment.iso.model_copy(update={"epoch_": commit_date(root, say)})
    return environment.model_copy(update={"iso": iso})
