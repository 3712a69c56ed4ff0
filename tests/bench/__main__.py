"""`nox -s bench`: what edgebuild costs against the plain tools, as ratios measured in this one run.

Each pair is measured here, one right after the other; read the ratios, not the seconds.
"""

import hashlib
import json
import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from edgebuild.results import Results
from edgebuild.run import run
from edgebuild.scan import search_set
from edgebuild.session import open_session, prepare
from edgebuild.verify import verify_iso
from tests.conftest import Workspace, copy_repository
from tests.integration.images import note_boots
from tests.registry_server import registry_server

ROUNDS = 3
TREE = "edgebuild/boot-tree:demo"
BAKE = ["docker", "buildx", "bake", "--progress", "quiet"]


def seconds(action: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Median seconds."""
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        action()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def bake(workspace: Workspace, environment: str, targets: Sequence[str]) -> None:
    file = workspace.result(environment, "inputs/docker-bake.json")
    argv = [*BAKE, "--file", str(file), *targets]
    run(argv, cwd=workspace.root, env={"BUILDX_NO_DEFAULT_ATTESTATIONS": "1"})


def in_container(script: str, *options: str) -> None:
    argv = ["docker", "run", "--rm", "--network", "none", *options, TREE, "bash", "-euo", "pipefail", "-c", script]
    run(argv)


def main() -> int:
    """Measure, print the table, and write it to docs/benchmarks.md."""
    rows: list[tuple[str, str, str, str, str]] = []

    def row(what: str, own: float, other: float, against: str, goal: str, *, difference: bool = False) -> None:
        measured = f"+{own - other:.2f} s" if difference else f"{own / other:.2f} ×"
        rows.append((what, f"{own:.2f} s", f"{against}: {other:.2f} s", measured, goal))
        print(" | ".join(rows[-1]), flush=True)

    with tempfile.TemporaryDirectory(prefix="edgebuild-bench-") as temporary:
        workspace = copy_repository(Path(temporary) / "repository")
        measure(workspace, Path(temporary), row)
    write(rows)
    return 0


def measure(workspace: Workspace, folder: Path, row: Callable[..., None]) -> None:
    """All pairs, one after the other."""
    build = ["build-all-images", "--env", "demo"]
    images = ["provider-image-1-24-6", "provider-image-1-25-2", "iso-image", "boot-tree"]
    workspace.call(*build)
    iso = workspace.result("demo", "palette-edge-installer.iso")

    work = folder / "by-hand"
    work.mkdir()
    script = (
        "cp -r /boot-tree /tmp/t; rm /tmp/t/rootfs.squashfs; unsquashfs -q -n -d /tmp/root /boot-tree/rootfs.squashfs"
    )
    squash = "mksquashfs /tmp/root /tmp/{0} -noappend -no-progress -quiet -b {1} -comp {2}"
    timed = """{ time -p %s; } 2>&1 | sed -n 's/^real //p' >> /out/times; stat -c %%s /tmp/%s >> /out/times"""
    script += "; " + timed % (squash.format("zstd", "1M", "zstd -Xcompression-level 3"), "zstd")
    script += "; " + timed % (squash.format("gzip", "128K", "gzip -Xcompression-level 9"), "gzip")
    in_container(script, "-v", f"{work}:/out")
    zstd_seconds, zstd_bytes, gzip_seconds, gzip_bytes = map(float, (work / "times").read_text().split())
    row("squashfs fast (zstd 3, 1 MiB)", zstd_seconds, gzip_seconds, "gzip 9, 128 KiB", "≤ 0.125 ×")
    print(f"  its size: {zstd_bytes / gzip_bytes:.3f} × gzip 9 (goal ≤ 1.02)")

    parts = "-map /boot-tree / -append_partition 2 0xef /boot-tree/boot/uefi.img -boot_image any appended_part_as=gpt"
    assemble = f"xorriso -md5 off -outdev /out/x.iso -volid COS_LIVE -joliet on {parts} 2>/dev/null"

    def by_hand() -> None:
        (work / "x.iso").unlink(missing_ok=True)
        in_container(assemble, "-v", f"{work}:/out")
        run(["sha256sum", work / "x.iso"])

    from edgebuild.iso import IsoRequest
    from edgebuild.iso import assemble as assemble_iso

    (work / "text").write_text("#cloud-config\n")
    request = IsoRequest(image=TREE, arch="amd64", grub_cfg=work / "text", user_data=work / "text", epoch=1704067200)

    def ours() -> None:
        (work / "y.iso").unlink(missing_ok=True)
        assemble_iso(request, work / "y.iso")

    row("ISO from the boot tree", seconds(ours), seconds(by_hand), "xorriso and sha256sum by hand", "≤ 1.15 ×")

    # Cold: a step that nobody has run before stands at the head of both chains.
    dockerfile = workspace.root / "Dockerfile.j2"
    pipeline = dockerfile.read_text()

    def make_cold(mark: str) -> None:
        text = pipeline.replace(" AS upstream-base\n", f" AS upstream-base\nRUN true {mark}\n")
        dockerfile.write_text(text.replace(" AS tools\n", f" AS tools\nRUN true {mark}\n"))
        workspace.call("render", "--env", "demo")

    def plain() -> None:
        bake(workspace, "demo", images)
        by_hand()

    make_cold(f"own-{time.time()}")
    cold = seconds(lambda: workspace.call(*build), 1)
    make_cold(f"plain-{time.time()}")
    row("build-all-images, cold", cold, seconds(plain, 1), "bake on the same files, xorriso by hand", "≤ 1.05 ×")
    dockerfile.write_text(pipeline)
    workspace.call(*build)

    names = iter(f"user{number}" for number in range(100))
    own = seconds(lambda: workspace.call("iso", "--env", "demo", "--set", f"user.name={next(names)}"))
    other = seconds(lambda: shutil.copyfile(iso, work / "copy.iso"))
    row("another user-data only", own, other, "cp of the ISO", "≤ +2 s", difference=True)

    workspace.call(*build)
    own = seconds(lambda: workspace.call(*build))
    measure_scan(workspace, cold, own, row)
    measure_gate(workspace, folder, row)
    workspace.call(*build)
    row("nothing changed, 2 versions", own, seconds(lambda: bake(workspace, "demo", images)), "bake, without ISO", "")
    versions = [f"1.{minor}.{patch}" for minor in range(24, 32) for patch in range(8)][:58]
    many = ["build-provider-images", "--env", "demo", "--set", f"kubernetes.versions={json.dumps(versions)}"]
    workspace.call(*many)
    targets = [f"provider-image-{version.replace('.', '-')}" for version in versions]
    own, other = seconds(lambda: workspace.call(*many)), seconds(lambda: bake(workspace, "demo", targets))
    row("nothing changed, 58 versions", own, other, "bake", "")

    quiet = {"stdout": subprocess.DEVNULL, "env": {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}}
    root = Path(__file__).parent.parent.parent
    subprocess.run([root / "inv", "--list"], check=True, **quiet)  # type: ignore[call-overload]

    def program(*argv: str) -> float:
        return seconds(lambda: subprocess.run(argv, check=True, **quiet), 15)  # type: ignore[call-overload]

    row(
        "inv --list",
        program(str(root / "inv"), "--list"),
        program(sys.executable, "-c", "import invoke.program"),
        "importing invoke",
        "≤ 1.5 ×",
    )
    all_versions = [f"1.{minor}.{patch}" for minor in range(20, 40) for patch in range(14)][:263]
    plan = [
        str(root / "inv"),
        "plan",
        "--env",
        "demo",
        "--json",
        "--set",
        f"kubernetes.versions={json.dumps(all_versions)}",
    ]
    row(
        "inv plan, 263 versions",
        program(*plan),
        program(str(root / "inv"), "--list"),
        "inv --list",
        "≤ +1 s",
        difference=True,
    )
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    measured = subprocess.run(
        ["/usr/bin/env", "python3", "-c", PEAK, *plan], capture_output=True, text=True, check=True
    ).stderr
    print(f"  peak memory of inv plan with 263 versions: {int(measured) / 1000:.0f} MB (goal ≤ 150 MB)")
    print(f"  peak memory of any process started here: {peak / 1000:.0f} MB")
    run(["docker", "image", "rm", *[f"ttl.sh/edgebuild:k3s-{version}-v4.9.38-demo" for version in versions]])


def measure_scan(workspace: Workspace, cold: float, unchanged: float, row: Callable[..., None]) -> None:
    """The scan for secrets beside builds without any: of every layer as after the very first, and of what is new."""
    os.environ["EDGE_HOST_TOKEN"] = "a registration token: 0123456789"
    session = open_session(workspace.root, "demo", ["secrets.edge_host_token=env:EDGE_HOST_TOKEN"])
    prepared = prepare(session, with_secrets=True)

    def search() -> None:
        search_set(session, prepared, session.results.current.resolve(), session.results.artifacts())

    def search_all() -> None:
        shutil.rmtree(workspace.root / "build/.cache/scan", ignore_errors=True)
        search()

    against = "the build without secrets"
    row("secret scan, cold: every layer", cold + seconds(search_all), cold, against, "≤ 1.10 ×")
    row("secret scan, nothing changed", unchanged + seconds(search), unchanged, against, "≤ 1.10 ×")


def measure_gate(workspace: Workspace, folder: Path, row: Callable[..., None]) -> None:
    """Verify beside reading and hashing once, and the gate of a push where nothing has changed."""
    results = Results(workspace.root / "build/demo")
    iso, entry = results.current.resolve() / "palette-edge-installer.iso", results.artifact("iso")

    def read_and_hash() -> None:
        with iso.open("rb") as file:
            hashlib.file_digest(file, "sha256")

    verify_iso(iso, entry)
    own, other = seconds(lambda: verify_iso(iso, entry), 9), seconds(read_and_hash, 9)
    row("verify of an ISO", own, other, "reading it once and hashing", "≤ 1.5 ×")
    with registry_server(folder / "registry") as address:
        push = ["push", "--env", "demo", "--set", f"image.registry={address}"]
        workspace.call("build-all-images", *push[1:])
        note_boots(results)
        workspace.call(*push)
        workspace.call(*push, "--verified")
        own, other = seconds(lambda: workspace.call(*push, "--verified")), seconds(lambda: workspace.call(*push))
        row("push of unchanged images, with the gate", own, other, "without it", "≤ +1 s", difference=True)


PEAK = """import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)"""


def write(rows: Sequence[Sequence[str]]) -> None:
    """docs/benchmarks.md, with date and machine."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    lines = [
        "# Benchmarks",
        "",
        f"`nox -s bench` on {time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPUs ({model[1] if model else platform.machine()}).",
        "Ratios are of one run; goals are those of the project.",
        "",
        "| what | edgebuild | against | measured | goal |",
        "|---|---|---|---|---|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    (Path(__file__).parent.parent.parent / "docs/benchmarks.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
