"""What one would type instead: xorriso, docker and cp, one after the other."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from edgebuild.run import run
from tests.bench.machine import Site

# As edgebuild writes ISOs, without what only makes the bytes the same each time.
XORRISO = (
    "xorriso -md5 off -outdev /out/x.iso -volid COS_LIVE -joliet on -map /boot-tree / "
    "-append_partition 2 0xef /boot-tree/boot/uefi.img -boot_image any appended_part_as=gpt"
)


def in_tools(image: str, script: str, folder: Path) -> None:
    """Run a script in a boot tree's image, with the folder at /out."""
    argv = ["docker", "run", "--rm", "--network", "none", "-v", f"{folder}:/out", image]
    run([*argv, "bash", "-euo", "pipefail", "-c", script])


def xorriso(image: str, folder: Path) -> None:
    """An ISO of a boot tree, and its checksum."""
    (folder / "x.iso").unlink(missing_ok=True)
    in_tools(image, f"{XORRISO} 2>/dev/null", folder)
    run(["sha256sum", folder / "x.iso"])


def copy(source: Path, target: Path) -> None:
    """`cp` to a file that is not there."""
    target.unlink(missing_ok=True)
    run(["cp", source, target])


def copies(source: Path, folder: Path, count: int) -> None:
    """So many, by one `cp` each."""
    for number in range(count):
        copy(source, folder / f"{number}.iso")


def bake_and_xorriso(site: Site, targets: Sequence[str], folder: Path) -> None:
    site.bake(targets)
    xorriso(site.boot_tree, folder)


def one_after_another(site: Site, targets: Sequence[str], mark: str) -> None:
    """The guide's steps: one `docker buildx build` for each image."""
    file = site.workspace.result(site.environment, "inputs/Dockerfile")
    for target in targets:
        argv = ["docker", "buildx", "build", "--progress", "quiet", "--file", str(file), "--target", target]
        run([*argv, "--tag", f"{mark}/by-hand:{target}", "."], cwd=site.root)


def canvos(site: Site, dockerfile: str, images: Sequence[str], folder: Path, mark: str) -> None:
    """The CanvOS way: each image on its own, then the ISO, which copies the root file system before it compresses it."""
    file = folder / "Dockerfile"
    file.write_text(dockerfile, encoding="utf-8")
    call = ["docker", "buildx", "build", "--progress", "quiet", "--file", str(file)]
    for image in images:
        run([*call, "--target", image, "--tag", f"{mark}/canvos:{image}", "."], cwd=site.root)
    shutil.rmtree(folder / "build", ignore_errors=True)
    run([*call, "--target", "iso", "--output", f"type=local,dest={folder / 'build'}", "."], cwd=site.root)
