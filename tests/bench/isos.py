"""The ISO: another site's files, many sites, its root file system, its putting together."""

import json
from collections.abc import Callable

from edgebuild.iso import IsoRequest, assemble
from tests.bench import byhand
from tests.bench.goals import Measured, Row
from tests.bench.machine import Bench, paired
from tests.bench.suite import Benchmark, at_most

RESPIN = at_most(1.2, plus=0.5)
# Both compressors on the root file system of the boot tree, unpacked; seconds and bytes of each go to /out/times.
SQUASH = """
unsquashfs -q -n -d /tmp/root /boot-tree/rootfs.squashfs
try() {
    { time -p mksquashfs /tmp/root "/tmp/$1" -noappend -no-progress -quiet "${@:2}"; } 2>&1 |
        sed -n 's/^real //p' >> /out/times
    stat -c %s "/tmp/$1" >> /out/times
}
try zstd -b 1M -comp zstd -Xcompression-level 3
try gzip -b 128K -comp gzip -Xcompression-level 9
"""


def respin(bench: Bench, settings: Callable[[int], list[str]]) -> list[Measured]:
    """The next ISO, each time another one; `settings` are the arguments of the n-th."""
    site, numbers = bench.demo, iter(range(100))
    copied = bench.scratch("respin") / "copy.iso"
    found = paired(
        lambda: site.call("iso", *settings(next(numbers))), lambda: byhand.copy(site.iso.resolve(), copied), 5
    )
    copied.unlink()
    return [found]


def user_data(bench: Bench) -> list[Measured]:
    return respin(bench, lambda number: ["--set", f"user.name=user{number}"])


def kernel_argument(bench: Bench) -> list[Measured]:
    return respin(bench, lambda number: ["--set", f"iso.kernel_arguments={json.dumps([f'bench={number}'])}"])


def overlay(bench: Bench) -> list[Measured]:
    file = bench.demo.root / "overlay/files-iso/bench-mark"

    def another(number: int) -> list[str]:
        file.write_text(f"{number}\n")
        return []

    try:
        return respin(bench, another)
    finally:
        file.unlink()


def squashfs(bench: Bench) -> list[Measured]:
    folder = bench.scratch("squashfs")
    byhand.in_tools(bench.demo.boot_tree, SQUASH, folder)
    own, own_bytes, other, other_bytes = map(float, (folder / "times").read_text().split())
    return [Measured(own, other), Measured(own_bytes / 1e6, other_bytes / 1e6)]


def put_together(bench: Bench) -> list[Measured]:
    folder = bench.scratch("put-together")
    text = folder / "text"
    text.write_text("#cloud-config\n")
    request = IsoRequest(image=bench.demo.boot_tree, arch="amd64", grub_cfg=text, user_data=text, epoch=1704067200)

    def own() -> None:
        (folder / "y.iso").unlink(missing_ok=True)
        assemble(request, folder / "y.iso")

    found = paired(own, lambda: byhand.xorriso(bench.demo.boot_tree, folder))
    bench.scratch("put-together")
    return [found]


BENCHMARKS = (
    Benchmark("user-data", 15, (Row("another user-data only", "cp of the ISO", (RESPIN,)),), user_data),
    Benchmark("kernel-argument", 15, (Row("another kernel argument", "cp of the ISO", (RESPIN,)),), kernel_argument),
    Benchmark("overlay", 15, (Row("another overlay file on the ISO", "cp of the ISO", (RESPIN,)),), overlay),
    Benchmark(
        "squashfs",
        90,
        (
            Row("root file system (zstd 3, 1 MiB blocks)", "gzip 9, 128 KiB", (at_most(1 / 8),)),
            Row("root file system: size", "gzip 9, 128 KiB", (at_most(1.02),), "MB"),
        ),
        squashfs,
    ),
    Benchmark(
        "put-together",
        15,
        (Row("ISO from the boot tree", "xorriso and sha256sum", (at_most(1.15),)),),
        put_together,
    ),
)
