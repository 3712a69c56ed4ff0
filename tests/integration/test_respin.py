"""The next ISO as a copy of the last one: the same bytes that xorriso writes, and never from a damaged one."""

import json
import os
import shutil
from pathlib import Path

import pytest

from edgebuild.run import Result
from tests.conftest import Workspace, copy_repository
from tests.integration.images import iso_text

COPIED = "copying the last ISO; other are: "
BOOT_TREE = "edgebuild/boot-tree:demo"


@pytest.fixture(scope="module")
def site(demo: Result, bootstrapped: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A repository with an overlay for the ISO, and its demo environment built."""
    workspace = copy_repository(tmp_path_factory.mktemp("respin"))
    workspace.write("overlay/files-iso/etc/motd", "welcome\n")
    workspace.write("overlay/files-iso/etc/other", "welcome\n")
    workspace.write("overlay/files-iso/ZZ last/big", "x" * 5000)
    workspace.call("iso", "--env", "demo")
    return workspace


def built(workspace: Workspace, *arguments: str) -> tuple[dict[str, object], str]:
    """The ISO's entry of artifacts.json, without what is another in each run, and what was said."""
    said = workspace.call("iso", "--env", "demo", *arguments).stderr
    entries = json.loads(workspace.result("demo", "artifacts.json").read_text())
    return {**next(each for each in entries if each["kind"] == "iso"), "seconds": 0}, said


def made_anew(workspace: Workspace, *arguments: str) -> dict[str, object]:
    """As `built`, with nothing that an ISO could be copied from."""
    shutil.rmtree(workspace.result("demo", "records") / "layouts")
    workspace.result("demo", "palette-edge-installer.iso").resolve().unlink()
    entry, said = built(workspace, *arguments)
    assert "putting together" in said
    assert COPIED not in said
    return entry


def test_copies_of_copies_have_the_bytes_that_xorriso_writes(site: Workspace) -> None:
    """User-data, boot menu, files of the overlay of the same and of other sizes."""
    for settings, texts, other in (
        (["--set", "user.name=operator"], {}, "/files-iso/config.yaml"),
        ([], {"motd": "WELCOME\n"}, "/etc/motd, /files-iso/config.yaml"),
        (["--set", 'iso.kernel_arguments=["debug"]'], {"motd": "hi\n"}, "/etc/motd, /boot/grub2/grub.cfg"),
        (["--set", "user.name=admin"], {"motd": "longer\n" * 99, "other": "hi\n"}, "/etc/motd, /etc/other"),
    ):
        for name, text in texts.items():
            site.write(f"overlay/files-iso/etc/{name}", text)
        copied, said = built(site, *settings)
        assert COPIED + other in said
    assert copied == made_anew(site, *settings)
    iso = site.result("demo", "palette-edge-installer.iso")
    site.call("verify", "--path", str(iso))
    assert iso_text(iso, BOOT_TREE, "/etc/motd") == "longer\n" * 99


def test_no_copy_of_a_damaged_iso(site: Workspace) -> None:
    """One byte in the root file system, with the file's time put back; and one that the copy would not keep."""
    iso = site.result("demo", "palette-edge-installer.iso")
    good, _ = built(site, "--set", "user.name=one")
    built(site)
    for offset in (60_000_000, iso.stat().st_size - 100):  # a page of the prefix, and one behind the site's files
        times = iso.stat()
        with iso.resolve().open("r+b") as file:
            file.seek(offset)
            byte = file.read(1)
            file.seek(offset)
            file.write(bytes([byte[0] ^ 1]))
        os.utime(iso, ns=(times.st_atime_ns, times.st_mtime_ns))
        again, said = built(site, "--set", "user.name=one")
        assert "palette-edge-installer.iso was changed since it was written; making it anew" in said
        assert again == good
        built(site)
