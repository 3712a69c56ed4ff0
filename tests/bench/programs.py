"""What starts often must start fast: `inv --list`, `inv plan`, the keys of very many versions."""

import subprocess
import sys
import time
from pathlib import Path

from edgebuild.keys import Sources, image_document, key_of, stage_documents
from edgebuild.run import process, run
from edgebuild.stages import parse_stages
from tests.bench.goals import Measured, Row
from tests.bench.machine import Bench, paired
from tests.bench.standins import rendered, standins, versions, with_versions
from tests.bench.suite import Benchmark, at_most

MANY = 263
STARTS = 15
# Prints the highest resident memory of the program and of all that it has started, in bytes.
PEAK = """import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)"""


def peak_bytes(*argv: str, folder: Path | None = None) -> int:
    """The highest resident memory of any one process of this call."""
    return int(run([sys.executable, "-c", PEAK, *argv], cwd=folder).stdout.split()[-1])


def quiet(*argv: str) -> None:
    with process(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        child.wait()
    assert child.returncode == 0, argv


def list_tasks(bench: Bench) -> list[Measured]:
    launcher = str(bench.demo.root / "inv")
    quiet(launcher, "--list")
    bare = [sys.executable, "-c", "import invoke.program"]
    return [paired(lambda: quiet(launcher, "--list"), lambda: quiet(*bare), STARTS)]


def plan_many(bench: Bench) -> list[Measured]:
    """Of an environment with payloads, that was never built: the longest way."""
    site = standins(bench).large
    argv = [str(site.root / "inv"), "plan", "--env", site.environment, "--json", *with_versions(versions(20, MANY))]
    time_needed = paired(lambda: quiet(*argv), lambda: quiet(str(site.root / "inv"), "--list"), 5)
    return [Measured(time_needed.own), Measured(peak_bytes(*argv, folder=site.root) / 1e6)]


def keys_many(bench: Bench) -> list[Measured]:
    """The pure part: from the rendered Dockerfile to a key for each image."""
    file = rendered(standins(bench).large, versions(20, MANY))
    text = file.read_text(encoding="utf-8")

    def keys() -> None:
        stages = parse_stages(text)
        names = [name for name in stages if name.startswith("provider-image-")]
        found = {name: key_of(document) for name, document in stage_documents(stages, names, Sources()).items()}
        every = {key_of(image_document(name, found[name], {})) for name in names}
        assert len(every) == MANY

    started = time.perf_counter()
    keys()
    return [Measured(time.perf_counter() - started)]


BENCHMARKS = (
    Benchmark("list", 5, (Row("inv --list", "importing invoke", (at_most(1.5),)),), list_tasks),
    Benchmark(
        "plan",
        6,
        (
            Row(f"inv plan, {MANY} versions", "", (at_most(plus=2),)),
            Row(f"inv plan, {MANY} versions: peak memory", "", (at_most(plus=150),), "MB"),
        ),
        plan_many,
    ),
    Benchmark("keys", 2, (Row(f"content keys of {MANY} versions", "", (at_most(plus=2),)),), keys_many),
)
