"""The ISO: another site's files, many sites, its root file system, its putting together."""

import functools
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace

from edgebuild.iso import IsoRequest, assemble
from tests.bench import byhand
from tests.bench.goals import Measured, Row, number
from tests.bench.machine import Bench, Site, Timing, paired, timed
from tests.bench.programs import peak_bytes
from tests.bench.suite import Benchmark, at_most

SITES, FEW_SITES = 100, 10
LEFT_OUT = "-e 'proc/*'"
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
    site, counted = bench.demo, iter(range(100))
    copied = bench.scratch("respin") / "copy.iso"
    found = paired(
        lambda: site.call("iso", *settings(next(counted))), lambda: byhand.copy(site.iso.resolve(), copied), 5
    )
    byhand.copy(site.iso.resolve(), copied)
    with copied.open("rb") as file:
        synced = timed(lambda: os.fsync(file.fileno())).seconds
    copied.unlink()
    return [
        replace(
            found, reason=f"{found.reason}; of the copying, {number(synced)} s is the disk's, where cp ends before"
        )
    ]


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


@functools.cache
def small(bench: Bench) -> Site:
    """An environment whose ISO is small enough to have it 200 times: some of its root file system is left out."""
    site = bench.site("small", bench.demo_config())
    template = site.root / "edgebuild/templates/boot-tree.j2"
    text = template.read_text(encoding="utf-8")
    assert text.count(LEFT_OUT) == 1
    template.write_text(
        text.replace(LEFT_OUT, f"{LEFT_OUT} 'usr/share/*' 'usr/lib/modules/*' 'var/*' 'boot/*'"), encoding="utf-8"
    )
    user_data = (site.root / "user-data.j2").read_text(encoding="utf-8")
    (site.root / "site-data.j2").write_text(f"{user_data}\nhostname: {{{{ site.name }}}}\n", encoding="utf-8")
    site.call("iso")
    return site


def sites_file(site: Site, count: int) -> str:
    """The path of a CSV file with so many sites."""
    file = site.root / f"sites-{count}.csv"
    file.write_text("name\n" + "".join(f"site-{number}\n" for number in range(count)), encoding="utf-8")
    return str(file)


def site_isos(bench: Bench) -> list[Measured]:
    """Both sides until the bytes are on the disk."""
    site, folder = small(bench), bench.scratch("copies")
    arguments = ["--user-data", str(site.root / "site-data.j2"), "--sites"]

    def without_sites() -> None:
        shutil.rmtree(site.workspace.result(site.environment, "sites"), ignore_errors=True)

    def synced(found: Timing) -> Timing:
        return Timing(found.seconds + timed(os.sync).seconds, found.steps)

    def own() -> Timing:
        without_sites()
        os.sync()
        return synced(site.call("site-isos", *arguments, sites_file(site, SITES)))

    def copies() -> Timing:
        bench.scratch("copies")
        os.sync()
        original = site.iso.resolve()
        found = synced(timed(lambda: byhand.copies(original, folder, SITES)))
        bench.scratch("copies")
        return found

    found = paired(own, copies, 2)
    call = [str(site.root / "inv"), "site-isos", "--env", site.environment, *arguments]
    peaks = []
    for count in (SITES, FEW_SITES):
        without_sites()
        peaks.append(peak_bytes(*call, sites_file(site, count), folder=site.root) / 1e6)
    without_sites()
    return [found, Measured(peaks[0], peaks[1])]


BENCHMARKS = (
    Benchmark("user-data", 15, (Row("another user-data only", "cp of the ISO", (RESPIN,)),), user_data),
    Benchmark("kernel-argument", 10, (Row("another kernel argument", "cp of the ISO", (RESPIN,)),), kernel_argument),
    Benchmark("overlay", 10, (Row("another overlay file on the ISO", "cp of the ISO", (RESPIN,)),), overlay),
    Benchmark(
        "sites",
        60,
        (
            Row(f"{SITES} site ISOs", f"{SITES} × cp", (at_most(1.2),)),
            Row(f"{SITES} site ISOs: peak memory", f"{FEW_SITES} site ISOs", (at_most(1, plus=5),), "MB"),
        ),
        site_isos,
    ),
    Benchmark(
        "squashfs",
        80,
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
