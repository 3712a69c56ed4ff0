"""The demo ISO in QEMU: every firmware and medium, up to the login of the user from the user-data."""

import json
import shutil
import threading
from pathlib import Path

import pytest

from edgebuild.run import Result, run
from tests.conftest import Workspace
from tests.integration.images import in_tools, iso_text

BOOT_TREE = "edgebuild/boot-tree:demo"


def png_size(file: Path) -> tuple[int, int]:
    """Width and height from a PNG's header."""
    head = file.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def test_all_four_ways(workspace: Workspace, demo: Result) -> None:
    result = workspace.call("boot", "--env", "demo", "--firmware", "both", "--media", "both")
    for way, name in {
        "bios, cd": "bios",
        "uefi, cd": "uefi",
        "bios, usb": "bios-usb",
        "uefi, usb": "uefi-usb",
    }.items():
        assert f"{way}: kairos logged in after" in result.stdout
        log = workspace.result("demo", f"boot/{name}.log").read_text(errors="replace")
        assert "edgebuild-42-kairos" in log
        assert min(png_size(workspace.result("demo", f"boot/{name}.png"))) >= 400


def test_an_iso_that_cannot_boot(workspace: Workspace, demo: Result, tmp_path: Path) -> None:
    """The same ISO with an overwritten kernel: said with the console's last lines, exit code 5."""
    from edgebuild.boot import BootRequest, boot_iso
    from edgebuild.errors import VerificationError

    broken = tmp_path / "broken.iso"
    shutil.copyfile(workspace.result("demo", "palette-edge-installer.iso"), broken)
    with broken.open("r+b") as file:
        file.write(b"\0" * 440)  # the boot record
        file.seek(17 * 2048)
        file.write(b"\0" * 2048)  # El Torito
    request = BootRequest(
        iso=broken,
        arch="amd64",
        firmware="bios",
        media="cd",
        image="edgebuild/boot-tools:demo",
        log=tmp_path / "log",
        screenshot=tmp_path / "screen.png",
        user="kairos",
        password="kairos",
        stop=threading.Event(),
        timeout=30,
    )
    with pytest.raises(VerificationError) as caught:
        boot_iso(request, say=print)
    assert caught.value.exit_code == 5
    assert "the ISO does not boot (bios, cd)" in str(caught.value)
    assert str(tmp_path / "log") in str(caught.value)


def test_no_iso_yet(workspace: Workspace, demo: Result) -> None:
    result = workspace.call("boot", "--env", "demo", "--set", "iso.name=other", check=False)
    assert result.returncode == 2
    assert "build/demo/other.iso does not exist" in result.stderr
    result = workspace.call("boot", "--env", "demo", "--firmware", "coreboot", check=False)
    assert result.returncode == 2
    assert "there are bios, uefi and both" in result.stderr


def test_results_of_the_demo(workspace: Workspace, demo: Result) -> None:
    assert "kubernetes.payload is none" in demo.stdout
    iso = workspace.result("demo", "palette-edge-installer.iso")
    assert iso.stat().st_mode & 0o077 == 0
    run(["sha256sum", "--check", "--strict", iso.name + ".sha256"], cwd=iso.parent)
    artifacts = {each["name"]: each for each in json.loads(workspace.result("demo", "artifacts.json").read_text())}
    assert artifacts["iso"]["digest"] == "sha256:" + (iso.with_name(iso.name + ".sha256").read_text().split()[0])
    assert artifacts["iso"]["size_bytes"] == iso.stat().st_size
    assert set(artifacts["iso"]) == {
        *("name", "kind", "path", "digest", "size_bytes", "seconds", "contents", "asked", "key")
    }
    for name in ("Dockerfile", "docker-bake.json", "grub.cfg", "user-data", "plan.json"):
        assert workspace.result("demo", f"inputs/{name}").exists()


def test_structure_of_the_iso(workspace: Workspace, demo: Result) -> None:
    iso = workspace.result("demo", "palette-edge-installer.iso")
    report = in_tools(
        iso, BOOT_TREE, "xorriso -indev /iso.iso -report_el_torito plain -report_system_area plain 2>&1"
    )
    assert "Volume id    : 'COS_LIVE'" in report
    for text in ("BIOS", "UEFI", "GPT", "protective-msdos-label", "grub2-mbr"):
        assert text in report
    listing = in_tools(iso, BOOT_TREE, "xorriso -indev /iso.iso -find / 2>/dev/null")
    for path in (
        "/boot/kernel",
        "/boot/initrd",
        "/rootfs.squashfs",
        "/boot/grub2/grub.cfg",
        "/boot/uefi.img",
        "/EFI/BOOT/bootx64.efi",
        "/files-iso/config.yaml",
    ):
        assert f"'{path}'" in listing
    script = (
        "xorriso -osirrox on -indev /iso.iso -extract /rootfs.squashfs /tmp/r 2>/dev/null; unsquashfs -stat /tmp/r"
    )
    squashfs = in_tools(iso, BOOT_TREE, script)
    assert "Compression zstd" in squashfs
    assert "compression-level 3" in squashfs
    assert "Block size 1048576" in squashfs
    assert iso_text(iso, BOOT_TREE, "/files-iso/config.yaml").startswith("#cloud-config\n")
