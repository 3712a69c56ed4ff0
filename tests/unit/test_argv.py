"""Every program's arguments, as lists."""

import csv
import itertools
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebuild import boot, bootstrap, engine, host, iso, layerstore
from edgebuild.boot import BootRequest
from edgebuild.container import container_argv, image_argv
from edgebuild.errors import ToolError
from edgebuild.iso import IsoRequest, content_parts

REQUEST = IsoRequest(
    image="tree", arch="amd64", grub_cfg=Path("/s/grub.cfg"), user_data=Path("/s/user-data"), epoch=1704067200
)
BOOT = BootRequest(
    iso=Path("/b/x.iso"), arch="amd64", firmware="uefi", media="cd", image="qemu", log=Path("l"), screenshot=Path("s"),
    user="kairos", password="secret", stop=threading.Event(),
)  # fmt: skip


@pytest.mark.parametrize(
    ("size", "parts"),
    [
        (0, [(0, 0)]),
        (1, [(0, 1)]),
        (3 * 10**9, [(0, 3 * 10**9)]),
        (3 * 10**9 + 1, [(0, 3 * 10**9), (3 * 10**9, 1)]),
    ],
)
def test_content_is_cut_into_parts_of_3_gb(size: int, parts: list[tuple[int, int]]) -> None:
    assert content_parts(size) == parts


def test_xorriso() -> None:
    argv = iso.xorriso_argv(REQUEST, sizes=[], keeps_menu=False)
    text = " ".join(argv)
    assert argv[0] == "xorriso"
    for part in (
        "-outdev -", "-volid COS_LIVE", "-joliet on", "-map /boot-tree /", "-map /site/grub.cfg /boot/grub2/grub.cfg",
        "-map /site/user-data /files-iso/config.yaml", "bin_path=/boot/eltorito.img",
        "grub2_mbr=/boot-tree/boot/boot_hybrid.img", "-append_partition 2 0xef /boot-tree/boot/uefi.img",
        "appended_part_as=gpt", "mbr_force_bootable=on", "all_file_dates =1704067200", "uuid 2024010100000000",
    ):  # fmt: skip
        assert part in text
    assert "/overlay" not in text
    assert "/content" not in text


def test_xorriso_with_everything() -> None:
    request = IsoRequest(
        image="tree", arch="amd64", grub_cfg=Path("g"), user_data=Path("u"), epoch=1, overlay=Path("o"),
        content=(Path("content-x/my bundle, 1.tar"),), cluster_definition=Path("c.tgz"),
    )  # fmt: skip
    argv = iso.xorriso_argv(request, sizes=[4 * 10**9], keeps_menu=True)
    parts = [argv[i + 1 : i + 5] for i, word in enumerate(argv) if word == "-cut_out"]
    name = "/opt/spectrocloud/content/my bundle, 1.tar"
    assert parts == [
        ["/content/0", "0", "3000000000", f"{name}_part00"],
        ["/content/0", "3000000000", "1000000000", f"{name}_part01"],
    ]
    assert "/site/grub.cfg" not in argv
    assert "/opt/spectrocloud/clusterconfig/spc.tgz" in argv
    assert "content-x/my bundle, 1.tar" not in " ".join(target for target in iso.mounts(request))


def test_arm64_has_no_bios() -> None:
    argv = iso.xorriso_argv(
        IsoRequest(image="t", arch="arm64", grub_cfg=Path("g"), user_data=Path("u"), epoch=1),
        sizes=[],
        keeps_menu=False,
    )
    assert "bin_path=/boot/eltorito.img" not in argv
    assert "platform_id=0xef" in argv


def test_containers_have_the_least_rights() -> None:
    for argv in (
        iso.docker_argv(REQUEST, "name", ["xorriso"], output=Path("/tmp/o")),
        boot.docker_argv(BOOT, "name", Path("/tmp/x"), kvm=False),
    ):
        text = " ".join(argv)
        for part in (
            "docker run --rm", "--network none", "--cap-drop ALL", "--security-opt no-new-privileges", "--read-only",
            "--pull never", f"--user {os.getuid()}:{os.getgid()}",
        ):  # fmt: skip
            assert part in text
        assert not {"--privileged", "--device"} & set(argv)
        assert argv.count("--cap-add") == (os.getuid() == 0)
        assert "secret" not in text


def test_layers_are_read_with_the_least_rights() -> None:
    layers = [layerstore.Layer("sha256:a", "sha256:chain", "/engine/overlay2/x/diff")]
    argv = layerstore.read_argv("image", "name", Path("/engine/image"), ["sha256:i"], layers, output=Path("/tmp/o"))
    text = " ".join(argv)
    for part in ("--network none", "--cap-drop ALL", "--read-only", "--user 0:0", "--cap-add DAC_READ_SEARCH"):
        assert part in text
    mounts = [value for option, value in itertools.pairwise(argv) if option == "--mount"]
    assert all(mount.endswith(",readonly") for mount in mounts[:-1])
    assert mounts[-1].endswith("target=/output")
    assert [mount.partition("target=")[2] for mount in mounts] == [
        "/images/00000,readonly", "/splits/00000,readonly", "/layers/0,readonly", "/output",
    ]  # fmt: skip


def test_no_other_way_into_a_container(root: Path) -> None:
    """The doctor tries whether a privileged one runs, and says that no build step needs it."""
    texts = {file.stem: file.read_text(encoding="utf-8") for file in (root / "edgebuild").glob("*.py")}
    assert {name for name, text in texts.items() if '"docker", "run"' in text} == {"container", "doctor"}
    assert {name for name, text in texts.items() if '"--privileged"' in text} == {"doctor"}
    assert {"--cap-drop", "--read-only", "none"} <= set(image_argv("image", "true"))


def test_a_user_who_is_not_root_adds_no_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    assert "--cap-add" not in iso.docker_argv(REQUEST, "name", [], output=Path("/o"))


@given(path=st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_a_path_cannot_leave_its_mount(path: str) -> None:
    argv = container_argv("image", [], name="n", read={"/in": Path("/s") / path})
    fields = next(csv.reader([argv[argv.index("--mount") + 1]]))
    assert fields == ["type=bind", f"source={Path('/s') / path}", "target=/in", "readonly"]


def test_qemu() -> None:
    assert boot.qemu_argv(BOOT, kvm=False)[-6:] == [
        "-drive", "if=none,id=medium,format=raw,readonly=on,file=/installer.iso",
        "-device", "virtio-scsi-pci", "-device", "scsi-cd,drive=medium,bootindex=0",
    ]  # fmt: skip
    assert "/usr/share/ovmf/OVMF.fd" in boot.qemu_argv(BOOT, kvm=False)
    assert "kvm" in boot.qemu_argv(BOOT, kvm=True)


DEB822 = """# a comment
Types: deb
URIs: http://mirror.example.com/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example.com/security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://off.example.com
Suites: bookworm
Components: main
"""
ONE_LINE = """deb [signed-by=/k.gpg arch=amd64] http://mirror.example.com/debian bookworm main contrib
# deb http://off.example.com bookworm main
deb-src http://mirror.example.com/debian bookworm main
"""
DEBIAN_12 = {"ID": "debian", "VERSION_ID": "12", "VERSION_CODENAME": "bookworm"}


@pytest.mark.parametrize("text", [DEB822, ONE_LINE])
def test_the_mirror_is_the_machines_own(text: str) -> None:
    own = host.mirror_of(host.parse_apt_sources(text), "bookworm")
    assert own is not None
    assert own.uri == "http://mirror.example.com/debian"
    assert own.signed_by


def test_engine_of_debian_12() -> None:
    commands = engine.install_commands(DEBIAN_12, host.parse_apt_sources(DEB822))
    text = "\n".join(" ".join(command) for command in commands)
    assert "Pin-Priority: 100" in text
    assert "URIs: http://mirror.example.com/debian" in text
    assert commands[-1][:4] == ["apt-get", "install", "--yes", "--no-install-recommends"]
    assert commands[-1][4:7] == ["docker.io/trixie", "docker-cli/trixie", "docker-buildx/trixie"]
    with pytest.raises(ToolError, match="name no Debian archive"):
        engine.install_commands(DEBIAN_12, [])


def test_engine_of_others() -> None:
    assert "docker-cli" in engine.install_commands({"ID": "debian", "VERSION_ID": "13"}, [])[-1]
    ubuntu = engine.install_commands({"ID": "ubuntu", "VERSION_ID": "24.04"}, [])[-1]
    assert "docker-cli" not in ubuntu
    assert "docker-buildx" in ubuntu


@pytest.mark.parametrize(
    ("version", "buildx", "expected"),
    [
        ("26.1.5+dfsg1", "0.13.1", ""),
        ("23.0.0", "v0.30.1", ""),
        ("20.10.24", "0.13.1", "Docker Engine 20.10.24 is too old"),
        ("26.1.5", "0.12.0", "buildx 0.12.0 is too old"),
        ("26.1.5", "", "docker has no buildx plugin"),
    ],
)
def test_versions(version: str, buildx: str, expected: str) -> None:
    found = engine.check_versions(version, buildx)
    assert found.startswith(expected)
    assert bool(found) == bool(expected)


def test_mmdebstrap() -> None:
    argv = bootstrap.mmdebstrap_argv("bookworm", "amd64", Path("base.tar"), "")
    assert argv[-2:] == ["bookworm", "base.tar"]
    assert bootstrap.mmdebstrap_argv("bookworm", "amd64", Path("base.tar"), "http://m")[-1] == "http://m"


@pytest.mark.parametrize(
    ("answer", "environ", "allowed"),
    [(True, {}, True), (False, {}, False), (True, {"EDGEBUILD_ENGINE": "never"}, False)],
)
def test_consent(answer: bool, environ: dict[str, str], allowed: bool) -> None:
    asked = []

    def ask(question: str) -> bool:
        asked.append(question)
        return answer

    consent = host.Consent(lambda _: None, ask, environ)
    if allowed:
        consent.obtain("Install it", [["apt-get", "x"]], problem="it is missing")
    else:
        with pytest.raises(ToolError) as caught:
            consent.obtain("Install it", [["apt-get", "x"]], problem="it is missing")
        assert caught.value.exit_code == 3
        assert "apt-get x" in caught.value.hint
    assert bool(asked) == (not environ)


@pytest.mark.parametrize(
    ("distribution", "root", "programs", "packages"),
    [
        ("debian", True, set(), ["mmdebstrap"]),
        ("ubuntu", True, set(), ["mmdebstrap", "debian-archive-keyring"]),
        ("debian", False, {"mmdebstrap"}, ["uidmap"]),
        ("debian", False, {"mmdebstrap", "newuidmap"}, []),
    ],
)
def test_what_the_bootstrap_needs(distribution: str, root: bool, programs: set[str], packages: list[str]) -> None:
    assert bootstrap.missing_packages(distribution, root=root, there=lambda name: name in programs) == packages
