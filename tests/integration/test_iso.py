"""The ISO writer: same input, same bytes; site files, content parts and large files."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from edgebuild.errors import BuildError
from edgebuild.iso import IsoRequest, assemble
from edgebuild.run import Result, run
from tests.conftest import Workspace
from tests.integration.images import in_tools, iso_text

BOOT_TREE = "edgebuild/boot-tree:demo"
AWKWARD = ["with space", "quote'single", 'quote"double', "umlaut-ü", "-dash", "comma,name", "$(id)"]


@pytest.fixture
def request_of(demo: Result, tmp_path: Path):  # type: ignore[no-untyped-def]
    """Makes a request with the demo's boot tree and files below tmp_path."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "grub.cfg").write_text("# menu\n")
    (site / "user-data").write_text("#cloud-config\n")

    def make(**more: object) -> IsoRequest:
        base = {"image": BOOT_TREE, "arch": "amd64", "epoch": 1704067200}
        return IsoRequest(grub_cfg=site / "grub.cfg", user_data=site / "user-data", **base, **more)  # type: ignore[arg-type]

    return make


def test_same_input_same_bytes(request_of, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    overlay = tmp_path / "overlay"
    (overlay / "a/b").mkdir(parents=True)
    (overlay / "a/b/file").write_text("x")
    first = assemble(request_of(overlay=overlay), tmp_path / "first.iso")
    (overlay / "a/b/file").chmod(0o600)
    os.utime(overlay / "a/b/file", (time.time() - 10**6,) * 2)
    overlay.chmod(0o700)
    second = assemble(request_of(overlay=overlay), tmp_path / "second.iso")
    assert first.sha256 == second.sha256
    assert first.size_bytes == (tmp_path / "first.iso").stat().st_size
    assert hashlib.sha256((tmp_path / "first.iso").read_bytes()).hexdigest() == first.sha256
    assert (tmp_path / "first.iso.sha256").read_text() == f"{first.sha256}  first.iso\n"
    owner = (tmp_path / "first.iso").stat()
    assert (owner.st_uid, owner.st_gid) == (os.getuid(), os.getgid())


def test_the_boot_tree_lists_its_own_hashes(demo: Result) -> None:
    """Beside the tree and not in it; complete, in C order, and true."""
    script = "cd /boot-tree && sha256sum -c --quiet --strict ../boot-tree.sha256 && find . -type f -printf '%P\\n'"
    found = run(["docker", "run", "--rm", "--network", "none", BOOT_TREE, "bash", "-euc", script]).stdout.split("\n")
    listed = run(["docker", "run", "--rm", "--network", "none", BOOT_TREE, "cat", "/boot-tree.sha256"]).stdout
    assert [line[66:] for line in listed.splitlines()] == sorted(filter(None, found))


def test_overlay_names_arrive_as_they_are(request_of, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    for name in [*AWKWARD, ".gitkeep"]:
        (overlay / name).write_text(name)
    assemble(request_of(overlay=overlay), tmp_path / "x.iso")
    script = "xorriso -osirrox on -indev /iso.iso -extract / /tmp/all 2>/dev/null; cd /tmp/all; cat -- *name*; ls -A"
    shown = in_tools(tmp_path / "x.iso", BOOT_TREE, script)
    for name in AWKWARD:
        assert name in shown
    assert ".gitkeep" not in shown


def test_the_overlay_may_bring_its_own_menu(request_of, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    overlay = tmp_path / "overlay"
    (overlay / "boot/grub2").mkdir(parents=True)
    (overlay / "boot/grub2/grub.cfg").write_text("# own menu\n")
    assemble(request_of(overlay=overlay), tmp_path / "x.iso")
    assert iso_text(tmp_path / "x.iso", BOOT_TREE, "/boot/grub2/grub.cfg") == "# own menu\n"


def test_content_is_cut_and_put_together_again(request_of, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """A bundle of 4.5 GB, sparse; the ISO holds more than 4 GiB."""
    bundle = tmp_path / "content-a"
    bundle.mkdir()
    large, small = bundle / "big bundle.zst", bundle / "small.tar"
    with large.open("wb") as file:
        file.write(b"begin")
        file.seek(3 * 10**9 - 3)
        file.write(b"across the cut")
        file.truncate(4_500_000_000)
    small.write_text("small")
    definition = tmp_path / "definition.tgz"
    definition.write_text("cluster")
    result = assemble(request_of(content=(large, small), cluster_definition=definition), tmp_path / "x.iso")
    assert result.size_bytes > 4_500_000_000
    script = """xorriso -indev /iso.iso -find /opt -type f -exec lsdl 2>/dev/null | awk '{print $5, $9, $10}'"""
    listing = in_tools(tmp_path / "x.iso", BOOT_TREE, script)
    assert "3000000000 '/opt/spectrocloud/content/big bundle.zst_part00'" in listing
    assert "1500000000 '/opt/spectrocloud/content/big bundle.zst_part01'" in listing
    assert "5 '/opt/spectrocloud/content/small.tar_part00'" in listing
    assert iso_text(tmp_path / "x.iso", BOOT_TREE, "/opt/spectrocloud/clusterconfig/spc.tgz") == "cluster"
    part = "/opt/spectrocloud/content/big bundle.zst_part01"
    cut = f"xorriso -osirrox on -indev /iso.iso -extract '{part}' /tmp/b 2>/dev/null; head -c 11 /tmp/b"
    assert in_tools(tmp_path / "x.iso", BOOT_TREE, cut) == "oss the cut"


def test_one_file_of_more_than_4_gib(request_of, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    with (overlay / "large").open("wb") as file:
        file.truncate(2**32 + 10)
    assemble(request_of(overlay=overlay), tmp_path / "x.iso")
    listing = in_tools(tmp_path / "x.iso", BOOT_TREE, "xorriso -indev /iso.iso -lsl /large 2>/dev/null")
    assert str(2**32 + 10) in listing


def test_no_boot_tree(request_of, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from dataclasses import replace

    request = replace(request_of(), image="edgebuild-tests/no-such-image:1")
    with pytest.raises(BuildError, match="the ISO could not be put together"):
        assemble(request, tmp_path / "x.iso")
    assert not (tmp_path / "x.iso").exists()


def test_another_user_data_changes_the_iso_only(workspace: Workspace, demo: Result) -> None:
    iso = workspace.result("demo", "palette-edge-installer.iso")
    before = iso.with_name(iso.name + ".sha256").read_text()
    tree = run(["docker", "image", "inspect", "--format", "{{.Id}}", BOOT_TREE]).stdout
    workspace.call("iso", "--env", "demo", "--set", "user.name=operator")
    assert run(["docker", "image", "inspect", "--format", "{{.Id}}", BOOT_TREE]).stdout == tree
    assert "operator" in iso_text(iso, BOOT_TREE, "/files-iso/config.yaml")
    workspace.call("iso", "--env", "demo")
    assert iso.with_name(iso.name + ".sha256").read_text() == before
