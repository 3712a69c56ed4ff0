"""One fault after the other, each with what must hold after it; a row of the table for each."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgebuild.container import LABEL
from edgebuild.results import Results
from edgebuild.run import Result, process, run
from tests.conftest import Workspace, copy_repository

ENVIRONMENT = f"faults-{os.getpid()}"  # the engine's tags are everybody's; these are ours
BUILD = ("build-all-images", "--env", ENVIRONMENT)
AGAIN = (*BUILD, "--again")  # also what is unchanged: a run that really does it all
ORPHAN_SECONDS = 20
WIDTH = 90  # of an outcome in the table


@dataclass(frozen=True)
class Row:
    """What was done, what came of it, and the seconds of the plain run after it; `problem` is empty when all held."""

    fault: str
    outcome: str
    seconds: float
    problem: str = ""


@dataclass
class Suite:
    """The rows so far."""

    rows: list[Row] = field(default_factory=list)

    def case(
        self,
        fault: str,
        provoke: Callable[[], str],
        workspace: Workspace,
        *,
        plain: Sequence[str] = BUILD,
        env: Mapping[str, str] | None = None,
        spared: bool = True,
    ) -> None:
        """Provoke a fault (which returns what came of it), then check what must hold after each.

        The last set verifies (not `spared`: unless the fault was to damage just that), nothing goes on running, and
        the plain run succeeds without help.
        """
        outcome, seconds = "", 0.0
        try:
            outcome = provoke()
            nothing_runs_on(workspace)
            if spared:
                verifies(workspace, env)
            started = time.monotonic()
            workspace.call(*plain, env=env)
            seconds = time.monotonic() - started
            checksums(workspace)
            nothing_is_left(workspace)
        except Exception as error:  # a row tells it, and the others are still to come
            self.add(Row(fault, outcome or "failed", seconds, f"{type(error).__name__}: {error}"))
        else:
            self.add(Row(fault, outcome, seconds))

    def add(self, row: Row) -> None:
        self.rows.append(row)
        print(f"{row.fault:<50} | {row.outcome:<98} | {row.seconds:5.1f} s", flush=True)
        if row.problem:
            print(f"  FAILED: {row.problem}", flush=True)

    def end(self) -> int:
        """The last line, and the exit code."""
        failed = [row for row in self.rows if row.problem]
        for row in failed:
            print(f"\nFAILED {row.fault}: {row.problem}")
        print(f"\n{len(self.rows) - len(failed)} passed, {len(failed)} failed")
        return 1 if failed else 0


def prepare(folder: Path) -> Workspace:
    """A copy of the repository with an environment of our own: the demo's, with one Kubernetes version."""
    workspace = copy_repository(folder)
    text = (workspace.root / "config/demo.yaml").read_text().replace('["1.24.6", "1.25.2"]', '["1.25.2"]')
    workspace.write(f"config/{ENVIRONMENT}.yaml", text.replace("tag: demo", f"tag: {ENVIRONMENT}"))
    (workspace.root / ".venv").symlink_to(sys.prefix)  # so that its launcher has nothing to make
    return workspace


def results_of(workspace: Workspace) -> Results:
    """What the plain runs make."""
    return Results(workspace.root / "build" / ENVIRONMENT)


def checksums(workspace: Workspace) -> None:
    """The ISO is the one whose checksum stands beside it."""
    folder = results_of(workspace).folder
    run(["sha256sum", "--check", "--strict", "--quiet", "palette-edge-installer.iso.sha256"], cwd=folder)


def verifies(workspace: Workspace, env: Mapping[str, str] | None = None) -> None:
    """The last complete set is there, and is in every part what was built."""
    checksums(workspace)
    workspace.call("verify", "--env", ENVIRONMENT, env=env)


def refused(result: Result, code: int, *says: str) -> str:
    """Check that a run ended with this code and a clear error that holds one of `says`; returns the line with it."""
    error = result.stderr.rpartition("error: ")[2]
    assert result.returncode == code, f"code {result.returncode} instead of {code}: {result.stdout}{result.stderr}"
    assert any(words in error for words in says), f"the error says nothing of {says}: {result.stderr}"
    assert "hint: " in error, f"no hint: {result.stderr}"
    line = next(line for line in error.splitlines() if any(words in line for words in says))
    return f"code {code}: {shown(line)}"


def shown(text: str) -> str:
    """A line, short enough for a table and without this run's folders."""
    line = re.sub(r"/tmp/\S*/(build/\S+)", r"\1", text.strip().rstrip(":"))
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"


def call(
    workspace: Workspace,
    *arguments: str,
    when: Mapping[str, Callable[[subprocess.Popen[str]], object]] | None = None,
    env: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> Result:
    """A task; when a line of its output holds one of the words, the action gets the process, once."""
    argv = [*prefix, sys.executable, "-u", "-m", "invoke", "--search-root", str(workspace.root), *arguments]
    waiting = dict(when or {})
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with process(argv, cwd=workspace.root, env=env, **pipes) as child:
        text = ""
        for line in child.stdout:  # type: ignore[union-attr]
            text += line
            for words in [words for words in waiting if words in line]:
                waiting.pop(words)(child)
        child.wait()
    assert "Traceback" not in text, text
    assert not waiting, f"never said {list(waiting)}: {text}"
    return Result(tuple(argv), child.returncode, "", text)


def killed_after(workspace: Workspace, seconds: float, number: signal.Signals, *arguments: str) -> Result:
    """A task that gets a signal so many seconds after its start; its own process only."""
    argv = [str(workspace.root / "inv"), *arguments]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    env = {"PYTHONUNBUFFERED": "1"}
    with process(argv, cwd=workspace.root, env=env, **pipes) as child:
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.send_signal(number)
        # What it started may hold the pipe a little longer.
        text, _ = child.communicate(timeout=60)
    assert "Traceback" not in text, text
    return Result(tuple(argv), child.returncode, "", text)


def commands(part: str) -> list[str]:
    """The command lines of processes other than this one that hold this part."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # it has just ended
                continue
            if part in line:
                found.append(line)
    return found


def nothing_runs_on(workspace: Workspace) -> None:
    """Whatever was killed: what it had started ends by itself, and soon."""
    deadline = time.monotonic() + ORPHAN_SECONDS
    while left := commands(str(workspace.root)):
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.1)  # nobody tells when the child of a dead process ends


def nothing_is_left(workspace: Workspace) -> None:
    """After the plain run: one set, no half-made file, no container, nothing in /tmp."""
    results = results_of(workspace)
    assert [path.name for path in (results.folder / ".sets").iterdir()] == [results.current.resolve().name]
    names = [path.name for path in results.folder.iterdir()]
    assert not [name for name in names if name.rpartition(".")[2].isdigit()], names
    assert not results.unfinished.exists()
    assert not list(workspace.root.glob("build/.cache/**/partial-*"))
    mounted = run(["docker", "ps", "--all", "--filter", f"label={LABEL}", "--format", "{{.Mounts}}"]).stdout
    assert str(workspace.root) not in mounted, mounted
