"""The place where things are measured: repositories to build in, paired timing, and an end that leaves nothing."""

import contextlib
import functools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgebuild.run import process, run
from tests.bench.goals import Measured, slowest
from tests.conftest import Workspace, copy_repository

ROUNDS = 3
LABEL = "io.edgebuild.bench"
# Behind the last step of the stage: the steps before it are those that everybody's builds have in the cache.
LABELLED = ('{% include "base-image.j2" %}', '{% include "boot-tree.j2" %}')
MARK = "bench-mark"  # stands in every step that only this suite runs


@dataclass(frozen=True)
class Timing:
    """One run: its seconds, and those of each step that it has named on the way."""

    seconds: float
    steps: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Site:
    """A repository with one environment to build in, as a user has it."""

    workspace: Workspace
    environment: str

    @property
    def root(self) -> Path:
        return self.workspace.root

    @property
    def iso(self) -> Path:
        return self.workspace.result(self.environment, "palette-edge-installer.iso")

    @property
    def boot_tree(self) -> str:
        return f"edgebuild/boot-tree:{self.environment}"

    def call(self, task: str, *arguments: str) -> Timing:
        """`./inv TASK --env ENVIRONMENT ARGUMENTS`, from the start of the process to its end."""
        return timed_call([str(self.root / "inv"), task, "--env", self.environment, *arguments], self.root)

    def bake(self, targets: Sequence[str]) -> None:
        """`docker buildx bake` of these targets, on the files that edgebuild has rendered last."""
        file = self.workspace.result(self.environment, "inputs/docker-bake.json")
        argv = ["docker", "buildx", "bake", "--progress", "quiet", "--file", str(file), *targets]
        run(argv, cwd=self.root, env={"BUILDX_NO_DEFAULT_ATTESTATIONS": "1"})

    def targets(self) -> list[str]:
        """The names of all images that the environment has."""
        plan = json.loads(self.workspace.call("plan", "--env", self.environment, "--json").stdout)
        return [each["name"] for each in plan["targets"] if each["kind"] not in {"iso", "base-image"}]


def timed_call(argv: Sequence[str], folder: Path) -> Timing:
    """Run a task; what it says on the way are its steps. Raises AssertionError with all that it said."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("EDGEBUILD_")}
    steps: list[tuple[str, float]] = []
    name, began = "starting", time.perf_counter()
    started = began
    with tempfile.TemporaryFile("w+") as output:
        with process(
            argv, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE, text=True
        ) as child:
            said = []
            for line in child.stderr:  # type: ignore[union-attr]
                said.append(line)
                if line.startswith("note:"):
                    continue
                now, step = time.perf_counter(), line.strip().partition(";")[0]
                # A line of a build's step comes when it has ended, every other one as something starts.
                ended_step = re.search(r"  [\d.]+ s$", step) is not None
                steps.append((step if ended_step else name, now - began))
                name, began = (f"after {step}" if ended_step else step), now
        ended = time.perf_counter()
        output.seek(0)
        assert child.returncode == 0, f"{' '.join(argv)}: {output.read()}{''.join(said)}"
    return Timing(ended - started, (*steps, (name, ended - began)))


def timed(action: Callable[[], object]) -> Timing:
    """Time an action; where it returns a Timing of its own, that one counts."""
    started = time.perf_counter()
    found = action()
    return found if isinstance(found, Timing) else Timing(time.perf_counter() - started)


def paired(own: Callable[[], object], other: Callable[[], object], rounds: int = ROUNDS) -> Measured:
    """Both sides in turn, each first as often as the other; medians."""
    owns: list[Timing] = []
    others: list[Timing] = []
    for number in range(rounds):
        sides = [(own, owns), (other, others)]
        for action, timings in sides if number % 2 == 0 else reversed(sides):
            timings.append(timed(action))
    middle = sorted(owns, key=lambda timing: timing.seconds)[len(owns) // 2]
    return Measured(
        statistics.median(timing.seconds for timing in owns),
        statistics.median(timing.seconds for timing in others),
        slowest(middle.steps),
    )


@dataclass(eq=False)
class Bench:
    """What the benchmarks share; made when the first of them needs it, gone with the suite."""

    folder: Path
    ends: contextlib.ExitStack
    cached_steps: set[str] = field(default_factory=lambda: {MARK})  # parts of descriptions in BuildKit's cache

    @property
    def mark(self) -> str:
        """In every name of an environment or an image of this run."""
        return f"{MARK}-{os.getpid()}"

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def site(self, name: str, config: str, *, change: Callable[[str], str] = lambda pipeline: pipeline) -> Site:
        """A copy of the repository with this environment; `change` is what a fork does to Dockerfile.j2."""
        workspace = copy_repository(self.folder / name)
        base = workspace.root / "build/.cache/bootstrap"
        if "demo" in vars(self) and not base.exists():  # made once, and not in what is measured
            shutil.copytree(self.demo.root / "build/.cache/bootstrap", base)
        environment = f"{self.mark}-{name}"
        workspace.write(f"config/{environment}.yaml", config)
        (workspace.root / ".venv").symlink_to(sys.prefix)  # so that its launcher has nothing to make
        pipeline = workspace.root / "Dockerfile.j2"
        text = pipeline.read_text()
        for include in LABELLED:
            assert text.count(include) == 1, include
            text = text.replace(include, f"{include}\nLABEL {LABEL}={os.getpid()}")
        pipeline.write_text(change(text))
        return Site(workspace, environment)

    @functools.cached_property
    def demo(self) -> Site:
        """Debian as in the demo environment, built."""
        self.say("  (first: the demo environment, built once)")
        site = self.site("demo", self.demo_config())
        site.call("build-all-images")
        return site

    def demo_config(self, **changes: str) -> str:
        """The text of the demo environment, with names of our own; `changes` replace whole lines' values."""
        text = (Path(__file__).parent.parent.parent / "config/demo.yaml").read_text(encoding="utf-8")
        for key, value in {"tag": self.mark, "repository": self.mark, **changes}.items():
            text, count = re.subn(rf"(?m)^( *{key}:).*$", rf"\1 {value}", text)
            assert count == 1, key
        return text

    def scratch(self, name: str) -> Path:
        """An empty folder."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder


@contextlib.contextmanager
def open_bench() -> Iterator[Bench]:
    """A bench in a folder of its own. At the end, whatever the reason: images, cache and folder are gone."""
    with contextlib.ExitStack() as ends:
        folder = Path(tempfile.mkdtemp(prefix="edgebuild-bench-"))
        ends.callback(shutil.rmtree, folder, ignore_errors=True)
        bench = Bench(folder, ends)
        ends.callback(lambda: remove_cache(bench.cached_steps))
        ends.callback(remove_images, bench.mark)
        yield bench


def remove_images(mark: str) -> None:
    """Those with this mark in their name, and those of this run that have lost theirs, or have none yet."""
    every = run(["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]).stdout.split()
    nameless = [
        "docker",
        "image",
        "ls",
        "--all",
        "--quiet",
        "--filter",
        "dangling=true",
        "--filter",
        f"label={LABEL}={os.getpid()}",
    ]
    found = [name for name in every if mark in name]
    for start in range(0, len(found), 100):
        run(["docker", "image", "rm", "--force", *found[start : start + 100]], check=False)
    if left := sorted(set(run(nameless).stdout.split())):
        run(["docker", "image", "rm", *left], check=False)


@dataclass(frozen=True)
class CacheRecord:
    """One record of BuildKit's cache."""

    id: str
    parents: tuple[str, ...]
    description: str


def parse_cache(text: str) -> list[CacheRecord]:
    """What `docker buildx du --verbose` prints. A description may be a whole script."""
    found = []
    for block in re.split(r"(?m)^(?=ID:\s)", text):
        head, _, rest = block.partition("\nDescription:")
        fields = dict(re.findall(r"(?m)^([A-Z][\w ]*):[ \t]*(.*)$", head))
        if "ID" in fields:
            parents = re.split(r"[,;\s]+", fields.get("Parent") or fields.get("Parents") or "")
            found.append(CacheRecord(fields["ID"], tuple(filter(None, parents)), rest.partition("\nUsage count:")[0]))
    return found


def marked_records(records: Sequence[CacheRecord], pattern: str) -> list[str]:
    """Ids of the records that the pattern finds, and of all that stand on one of them; those on top come first."""
    children: dict[str, list[str]] = {}
    for record in records:
        for parent in record.parents:
            children.setdefault(parent, []).append(record.id)
    ordered: dict[str, None] = {}

    def visit(record: str) -> None:
        for child in children.get(record, []):
            if child not in ordered:
                visit(child)
        ordered[record] = None

    for record in records:
        if re.search(pattern, record.description) and record.id not in ordered:
            visit(record.id)
    return list(ordered)


def remove_cache(steps: Collection[str]) -> None:
    """What BuildKit keeps of steps that only this suite runs."""
    listed = run(["docker", "buildx", "du", "--verbose"], check=False).stdout
    for record in marked_records(parse_cache(listed), "|".join(map(re.escape, steps))):
        run(["docker", "buildx", "prune", "--all", "--force", "--filter", f"id={record}"], check=False)
