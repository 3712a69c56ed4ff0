"""The one door to other programs: argument lists in, results out, nothing left running."""

import contextlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edgebuild.errors import EdgebuildError, ToolError
from edgebuild.secrets import hidden

TAIL_LINES = 20
STOP_SECONDS = 10.0

Argv = Sequence[str | Path]

# Kept, because Python warns of a running program that nobody refers to any more.
_outliving: list[subprocess.Popen[Any]] = []
# Those of `process`, in every thread; each is there until it has ended.
_running: list[subprocess.Popen[Any]] = []


@dataclass(frozen=True)
class Result:
    """A finished program: its arguments, exit code and text output."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


class CommandFailed(EdgebuildError):
    """A program ended with a code other than 0; `result` holds what it printed."""

    def __init__(self, result: Result) -> None:
        self.result = result
        tail = (result.stderr or result.stdout).strip().splitlines()[-TAIL_LINES:]
        super().__init__(
            f"`{shlex.join(result.argv)}` ended with code {result.returncode}"
            + "".join(f"\n    {line}" for line in tail)
        )


def run(
    argv: Argv,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    check: bool = True,
    timeout: float | None = None,
) -> Result:
    """Run a program to its end and capture its text output.

    `env` is added to this process's environment. Raises ToolError when the program does not exist
    or takes longer than `timeout` seconds, CommandFailed when it fails and `check` is set.
    """
    with process(
        argv,
        env=env,
        cwd=cwd,
        text=True,
        errors="replace",
        stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        try:
            out, err = child.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise ToolError(f"`{shlex.join(map(str, argv))}` gave no answer in {timeout:.0f} s") from error
    result = Result(tuple(map(str, argv)), child.returncode, out, err)
    if check and result.returncode:
        raise CommandFailed(result)
    return result


@contextlib.contextmanager
def process(
    argv: Argv, *, env: Mapping[str, str] | None = None, cwd: Path | None = None, **options: Any
) -> Iterator[subprocess.Popen[Any]]:
    """Start a program; whatever happens in the body, it has ended when the body is left.

    `options` go to subprocess.Popen. An exception in the body, Ctrl-C among them, terminates the
    program, and kills it after STOP_SECONDS.
    """
    child = _start(_ended_with_us(argv, env or {}), env=env, cwd=cwd, **options)
    _running.append(child)
    try:
        yield child
        child.wait()
    except BaseException:
        stop(child)
        raise
    finally:
        _running.remove(child)
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def spawn(argv: Argv, *, log: IO[bytes], env: Mapping[str, str] | None = None) -> subprocess.Popen[Any]:
    """Start a program that outlives this process, in a session of its own, output to `log`."""
    child = _start(argv, env=env, cwd=None, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    _outliving.append(child)
    return child


def _ended_with_us(argv: Argv, env: Mapping[str, str]) -> Argv:
    """The call, so that the kernel terminates the program when this process is killed and can do so no more itself.

    Terminated, not killed: docker, buildx and mmdebstrap then end what they have started.
    """
    path = env.get("PATH", os.environ.get("PATH"))
    setpriv = shutil.which("setpriv")
    if not (setpriv and shutil.which(str(argv[0]), path=path)):
        return argv
    return [setpriv, "--pdeathsig", "TERM", "--", *argv]


def _start(argv: Argv, *, env: Mapping[str, str] | None, cwd: Path | None, **options: Any) -> subprocess.Popen[Any]:
    # A secret's own variable is for this process only; the one program that needs its value is given it in `env`.
    inherited = {name: value for name, value in os.environ.items() if name not in hidden.variables}
    try:
        return subprocess.Popen([str(part) for part in argv], env={**inherited, **(env or {})}, cwd=cwd, **options)
    except FileNotFoundError as error:
        if cwd and not cwd.is_dir():
            raise
        raise ToolError(f"`{argv[0]}` is not installed or not in PATH") from error
    except PermissionError as error:
        raise ToolError(f"`{argv[0]}` may not be run: {error.strerror}") from error


def running() -> list[subprocess.Popen[Any]]:
    """The programs that this process waits for just now."""
    return list(_running)


def stop(child: subprocess.Popen[Any]) -> None:
    """Terminate a program, and kill it when it does not end within STOP_SECONDS."""
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
