"""`inv verify` on the real demo: what is changed by one byte is found and named, and what cannot boot is refused."""

import json
import random
import shutil
from pathlib import Path

import pytest

from edgebuild import isofile, rebuild, squashfs, structure, verify
from edgebuild.results import Artifact
from edgebuild.run import Result, run
from tests.conftest import Workspace
from tests.integration.images import inspect

ISO = "palette-edge-installer.iso"
PLACES = 200


@pytest.fixture(scope="module")
def copied(workspace: Workspace, demo: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's result set, as it would be carried to another machine."""
    target = tmp_path_factory.mktemp("carried") / "demo"
    shutil.copytree(workspace.result("demo", ".current").resolve(), target)
    return target


@pytest.fixture
def iso_entry(copied: Path) -> Artifact:
    entries = [Artifact(**entry) for entry in json.loads((copied / "artifacts.json").read_text())]
    return next(entry for entry in entries if entry.kind == "iso")


def flip(file: Path, offset: int) -> None:
    """Change one byte; the same call changes it back."""
    with file.open("r+b") as stream:
        stream.seek(offset)
        byte = stream.read(1)[0]
        stream.seek(offset)
        stream.write(bytes([byte ^ 0x5A]))


def problems(path: Path) -> list[str]:
    return [f"{finding.part}: {problem}" for finding in verify.verify_path(path) for problem in finding.problems]


def test_an_untouched_set_on_another_machine(workspace: Workspace, copied: Path) -> None:
    nowhere = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}
    for path in (copied, copied / ISO):
        result = workspace.call("verify", "--path", str(path), env=nowhere)
        assert f"ok       {ISO}" in result.stdout
    run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=copied)


def test_one_byte_anywhere_in_the_iso(copied: Path, iso_entry: Artifact) -> None:
    """At places spread over all of it, and at one of every part: found, and named by the part."""
    iso, choose = copied / ISO, random.Random(3)  # noqa: S311 - places, no secret
    size = iso.stat().st_size
    regions = isofile.read_iso(iso).regions
    places = [choose.randrange(region.offset, region.offset + region.length) for region in regions]
    places += [size * number // PLACES for number in range(PLACES - len(places))]
    for place in places:
        region = next(each for each in regions if each.offset <= place < each.offset + each.length)
        flip(iso, place)
        try:
            found = verify.verify_iso(iso, iso_entry)[0].problems
        finally:
            flip(iso, place)
        assert any(problem.startswith(region.name.split(" behind")[0]) for problem in found), (place, region, found)
    assert problems(iso) == []


def test_one_byte_anywhere_in_the_root_file_system(copied: Path) -> None:
    """Without artifacts.json and checksum: damaged tables are found by themselves."""
    iso = copied / ISO
    region = isofile.read_iso(iso).files[structure.ROOT][0]
    head, flaws = squashfs.check(iso, region)
    assert head
    assert flaws == []
    for place in (
        0,
        12,
        20,
        40,
        *range(head.inode_table, head.bytes_used, (head.bytes_used - head.inode_table) // 40),
    ):
        flip(iso, region.offset + place)
        try:
            found = squashfs.check(iso, region)[1]
        finally:
            flip(iso, region.offset + place)
        if place < head.inode_table and place not in {12, 20}:
            assert found, place


@pytest.mark.parametrize("name", ["artifacts.json", "SHA256SUMS", "cluster-profile.yaml", "sbom/iso.cdx.json"])
def test_one_byte_in_the_other_files(copied: Path, name: str) -> None:
    file = copied / name
    size = file.stat().st_size
    for place in range(0, size, max(size // 20, 1)):
        flip(file, place)
        try:
            found = problems(copied)
        finally:
            flip(file, place)
        part = name.split("/")[-1] if name != "SHA256SUMS" else ""
        assert any(part in problem for problem in found), (name, place, found)
    assert problems(copied) == []


def test_no_byte_of_artifacts_json_ends_in_a_traceback(copied: Path) -> None:
    """Wherever it is changed, it is read or refused; what still reads is found by its checksum."""
    file = copied / "artifacts.json"
    content = file.read_bytes()
    try:
        for place in range(len(content)):
            for byte in (b"-", b'"', b"}", b"9"):
                file.write_bytes(content[:place] + byte + content[place + 1 :])
                verify._read_artifacts(copied)
        file.write_text('[{"name": 1}]')
        assert "artifacts.json: it was changed" in problems(copied)[0]
    finally:
        file.write_bytes(content)


def test_files_that_are_missing_or_new(copied: Path) -> None:
    (copied / ISO).rename(copied / "other")
    try:
        found = problems(copied)
        assert f"{ISO}: it is missing" in found
        assert "files: other: is not in SHA256SUMS" in found
    finally:
        (copied / "other").rename(copied / ISO)


def test_an_iso_that_is_cut_off(copied: Path, iso_entry: Artifact, tmp_path: Path) -> None:
    short = tmp_path / ISO
    shutil.copyfile(copied / ISO, short)
    run(["truncate", "--size", "100M", short])
    found = verify.verify_iso(short, iso_entry)[0].problems
    assert f"it has 104857600 bytes, and had {iso_entry.size_bytes}" in found
    assert any(problem.startswith("/rootfs.squashfs: ") for problem in found)
    alone = verify.verify_iso(short, None)[0].problems
    assert any("GUID partition table" in problem or "cannot be read" in problem for problem in alone), alone
    short.write_bytes(b"no ISO at all")
    assert verify.verify_iso(short, None)[0].problems
    result = verify.verify_path(short)
    assert any(finding.problems for finding in result)


def _rewrite(iso: Path, target: Path, *commands: str) -> Path:
    """The ISO with changes, written anew by xorriso without anything else that it needs to boot."""
    argv = ["docker", "run", "--rm", "--network", "none", "-v", f"{iso.parent}:/in:ro", "-v", f"{target.parent}:/out"]
    script = (
        f"xorriso -indev /in/{iso.name} -outdev /out/{target.name} -boot_image any discard {' '.join(commands)} 2>&1"
    )
    run([*argv, inspect("edgebuild/boot-tree:demo")["Id"], "sh", "-c", script])
    return target


def test_what_an_iso_must_have(copied: Path, tmp_path: Path) -> None:
    """An ISO of another making: every flaw is named, without anything to compare it with."""
    iso = _rewrite(copied / ISO, tmp_path / "x.iso", "-volid OTHER -rm /files-iso/config.yaml /boot/kernel --")
    found = verify.verify_iso(iso, None)[0].problems
    for expected in (
        "/boot/grub2/grub.cfg: looks for the volume COS_LIVE, and the ISO is 'OTHER'",
        "/boot/grub2/grub.cfg: names /boot/kernel, which is missing",
        "/boot/kernel: missing",
        "/files-iso/config.yaml: the user-data is missing",
        "El Torito: no bootable entry for UEFI",
    ):
        assert expected in found
    asked = structure.Expected(
        arch="amd64", label="COS_LIVE", compressor="xz", block_size=4096, files={"/boot/x": ""}
    )
    found = tuple(structure.check_iso(copied / ISO, isofile.read_iso(copied / ISO), asked))
    assert found == (
        "/rootfs.squashfs: compressed with zstd, and xz was asked for",
        "/rootfs.squashfs: blocks of 1048576 bytes, and 4096 were asked for",
        "/boot/x: missing",
    )


@pytest.fixture
def damaged_tree(workspace: Workspace, demo: Result) -> str:
    """The demo's boot tree with its root file system cut off in the engine's storage."""
    image: str = next(
        each["digest"]
        for each in json.loads(workspace.result("demo", "artifacts.json").read_text())
        if each["kind"] == "boot-tree"
    )
    layers = inspect(image)["GraphDriver"]["Data"]
    folders = [layers["UpperDir"], *layers["LowerDir"].split(":")]
    file = next(path for folder in folders if (path := Path(folder) / "boot-tree/rootfs.squashfs").exists())
    run(["truncate", "--size", "100M", file])
    return image


def test_a_boot_tree_that_the_engine_has_damaged(workspace: Workspace, damaged_tree: str) -> None:
    """It is made anew in the same run, and comes out the same."""
    before = workspace.result("demo", f"{ISO}.sha256").read_text()
    result = workspace.call("iso", "--env", "demo", "--again")
    assert "the boot tree in the engine is damaged: /rootfs.squashfs; making it anew" in result.stderr
    assert workspace.result("demo", f"{ISO}.sha256").read_text() == before
    workspace.call("verify", "--env", "demo")


def test_the_environment(workspace: Workspace, demo: Result) -> None:
    shown = workspace.call("verify", "--env", "demo").stdout
    for part in (ISO, "files", "provider-image-1-24-6", "iso-image", "operating system"):
        assert f"ok       {part}" in shown
    unbuilt = workspace.write("config/unbuilt.yaml", (workspace.root / "config/demo.yaml").read_text())
    nothing = workspace.call("verify", "--env", "unbuilt", check=False)
    unbuilt.unlink()
    assert nothing.returncode == 2
    assert "build/unbuilt holds no results" in nothing.stderr
    iso = workspace.result("demo", ISO).resolve()
    flip(iso, 60_000_000)
    try:
        found = workspace.call("verify", "--env", "demo", check=False)
    finally:
        flip(iso, 60_000_000)
    assert found.returncode == 5
    assert f"{ISO}: /rootfs.squashfs: its bytes are not those that were built" in found.stderr
    assert f"differs  {ISO}" in found.stdout


def test_an_image_with_a_host_key_is_refused(workspace: Workspace, demo: Result) -> None:
    """By the check that ends every build; the earlier results stay."""
    before = workspace.result("demo", "SHA256SUMS").read_text()
    file = workspace.root / "Dockerfile.j2"
    text = file.read_text()
    end = "{# ---"  # behind the last step that cleans, as a careless change of the pipeline would be
    assert text.count('{% include "base-image.j2" %}') == 1
    changed = "RUN touch /etc/ssh/ssh_host_rsa_key && mkdir /lib/modules/1.2.3 && echo a > /etc/machine-id\n"
    file.write_text(text.replace('{% include "base-image.j2" %}\n', '{% include "base-image.j2" %}\n' + changed))
    try:
        result = workspace.call("base-image", "--env", "demo", check=False)
    finally:
        file.write_text(text)
    assert end in text
    assert result.returncode == 5, result.stderr
    assert "base-image: /etc/ssh/ssh_host_rsa_key: a host key that every host would share" in result.stderr
    assert "base-image: /etc/machine-id: every host would have the same" in result.stderr
    assert "base-image: /lib/modules: one kernel must be there, and there are 1.2.3, " in result.stderr
    assert workspace.result("demo", "SHA256SUMS").read_text() == before


def test_built_again_without_cache_it_is_the_same(workspace: Workspace, demo: Result) -> None:
    result = workspace.call("verify", "--env", "demo", "--rebuild", "--no-registry")
    assert "identical bytes" in result.stdout
    assert "ok       base.tar" in result.stdout
    (workspace.root / "overlay/files-iso/new").write_text("x")
    try:
        other = workspace.call("verify", "--env", "demo", "--rebuild", "--set", "user.name=else", check=False)
    finally:
        (workspace.root / "overlay/files-iso/new").unlink()
    assert other.returncode == 2
    assert "the ISO was made from other inputs than there are now: user-data" in other.stderr


def test_a_difference_is_named_by_the_file(copied: Path, iso_entry: Artifact, tmp_path: Path) -> None:
    """A file that differs in a root file system, as by a build that writes the time into it."""
    script = """mkdir -p /tmp/r/etc && cp -r /etc/apt /etc/hostname /etc/localtime /tmp/r/etc/
make() { mksquashfs /tmp/r "/out/$1" -quiet -no-progress -comp zstd -Xcompression-level 1 -all-time 1704067200; }
make first && echo other > /tmp/r/etc/hostname && touch /tmp/r/etc/new && chmod 600 /tmp/r/etc/apt && make second"""
    argv = ["docker", "run", "--rm", "--network", "none", "-v", f"{tmp_path}:/out", "edgebuild/boot-tree:demo"]
    run([*argv, "bash", "-euc", script])
    files = (tmp_path / "first", tmp_path / "second")
    trees = [dict(squashfs.entries(file, isofile.Region(0, file.stat().st_size, ""))) for file in files]
    assert list(squashfs.differences(*trees)) == [
        "/etc/apt: mode differ",
        "/etc/hostname: size, content differ",
        "/etc/new: only in the second build",
    ]
    assert list(rebuild._differences(copied / ISO, copied / ISO, iso_entry, iso_entry)) == [
        "padding: differs from the first build"
    ]
