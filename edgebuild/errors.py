"""The one tree of errors. Each class owns an exit code; tasks.py prints them in one place."""

from collections.abc import Sequence

SHOWN = 50  # problems in one error


class EdgebuildError(Exception):
    """What the user gets to see: a message, a hint that names the next command, and an exit code.

    Exit codes: 1 the build failed, 2 configuration or input, 3 tool or engine, 4 registry,
    5 verification, 130 interrupted.
    """

    exit_code = 1
    stage = ""  # of the Dockerfile, where one failed and others may do

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class BuildError(EdgebuildError):
    """A build step failed."""


class InputError(EdgebuildError):
    """The configuration, or a file that it names, is wrong."""

    exit_code = 2

    @classmethod
    def from_problems(cls, problems: Sequence[str], *, hint: str = "") -> "InputError":
        """Join all problems found into one error, a line each."""
        head = f"{len(problems)} problems in the configuration:\n  " if len(problems) > 1 else ""
        more = [f"... and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        return cls(head + "\n  ".join([*problems[:SHOWN], *more]), hint=hint)


class ToolError(EdgebuildError):
    """A program or the engine is missing, too old or unreachable."""

    exit_code = 3


class RegistryError(EdgebuildError):
    """A registry refused, or holds something else than what was pushed."""

    exit_code = 4


class VerificationError(EdgebuildError):
    """An artifact is not what it should be."""

    exit_code = 5
