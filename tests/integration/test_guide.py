"""The guide's Basic and Advanced workflows, step for step, against stand-ins of the upstream images."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgebuild.run import run
from tests.conftest import TOKEN, Workspace
from tests.integration.images import inspect, iso_text, look
from tests.upstream import mirror_setting

RELEASES = ["v3.4.3", "v4.9.38", "v4.10.0-rc.10"]
WIREGUARD = "RUN sudo zypper refresh && sudo zypper install -y wireguard-tools\n"


def arguments(environment: str, release: str, registry: str) -> list[str]:
    settings = [f"release={release}", mirror_setting(registry), f"image.registry={registry}/{environment}"]
    if release == "v3.4.3":
        settings.append("kubernetes.versions=all")
        settings.append("os.version=" + ("22" if environment == "basic" else "15.4"))
    return ["--env", environment, *(part for setting in settings for part in ("--set", setting))]


def plan_of(workspace: Workspace, asked: list[str]) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = {}
    for target in json.loads(workspace.call("plan", "--json", *asked).stdout)["targets"]:
        found.setdefault(target["kind"], []).append(target)
    return found


def check_host_identity(image: str) -> None:
    """Nothing that must differ from host to host, and links of the base still are links."""
    script = "stat -c '%a %s' /etc/machine-id; ls /etc/ssh; for l in /lib /bin /sbin; do test -L $l; done; ls /tmp"
    lines = look(image, script).split()
    assert lines[:2] == ["444", "0"]
    assert not [name for name in lines if "host" in name or name == "moduli"]


def check_one_kernel(image: str) -> None:
    script = "ls /lib/modules | wc -l; readlink -f /boot/vmlinuz; readlink -f /boot/initrd; test -s /boot/initrd"
    count, kernel, initrd = look(image, script).split()
    assert count == "1"
    assert kernel.startswith("/boot/vmlinuz-")
    assert initrd.removeprefix("/boot/initrd-") == kernel.removeprefix("/boot/vmlinuz-")


def check_layers(images: list[str]) -> None:
    """All versions stand on the same layers and differ in the last one only."""
    first, second = (inspect(image)["RootFS"]["Layers"] for image in images)
    assert first[:-1] == second[:-1]
    assert first[-1] != second[-1]


def boot_arguments(image: str) -> str:
    return look(image, "grep -E 'set base(Cmd|SelinuxCmd)=' /etc/cos/bootargs.cfg")


@pytest.mark.parametrize("release", RELEASES)
def test_basic(workspace: Workspace, upstream: str, engine: Any, release: str) -> None:
    asked = arguments("basic", release, upstream)
    built = workspace.call("build-all-images", *asked, "--push", env={"EDGE_HOST_TOKEN": TOKEN})
    assert TOKEN not in built.stdout + built.stderr
    plan = plan_of(workspace, asked)
    images = [str(target["tags"][0]) for target in plan["provider-image"]]  # type: ignore[index]
    versions = [str(target["kubernetes_version"]) for target in plan["provider-image"]]
    assert images == [f"{upstream}/basic/ubuntu:k3s-{version}-{release}-demo" for version in versions]
    installer = str(plan["installer-image"][0]["tags"][0])  # type: ignore[index]
    assert installer == f"palette-installer-image:{release}-demo"
    modern = release != "v3.4.3"

    check_layers(images)
    for image, version in zip(images, versions, strict=True):
        check_host_identity(image)
        check_one_kernel(image)
        assert look(image, "k3s; kubectl").split() == [f"k8s/k3s@{version}-k3s1"] * 2
        assert look(image, "cat /usr/lib/systemd/system/k3s.service").startswith("[Service]")
        assert look(image, "ls /var/cache; stat -c '%a %U' /tmp /root").split() == (["1777", "root", "700", "root"])
        assert look(image, "cat /etc/kairos/branding/grubmenu.cfg /etc/elemental/config.yaml")
        assert "agent-provider-stylus" not in look(image, "ls /opt 2>/dev/null || true")
        assert inspect(image)["Config"]["Labels"]["io.edgebuild.kubernetes.version"] == version
    check_host_identity(installer)
    assert look(
        installer, "/opt/spectrocloud/bin/agent-provider-stylus; test -e /usr/lib/systemd/system/stylus.service"
    )
    one = images[0]
    if modern:
        assert look(one, "/system/providers/agent-provider-k3s; test ! -e /usr/local/system/providers") == "k3s\n"
        assert look(one, "stat -c %a /usr/bin/etcdctl /etc/kairos/80_stylus.yaml").split() == ["755", "644"]
        assert look(one, "cat /etc/kairos/branding/stylus_config.yaml") == "stylus: {}\n"
        held = look(one, "apt-mark showhold").split()
        assert held == ["linux-generic", "linux-headers-generic", "linux-image-generic"]
        assert look(
            one, "dpkg-query -W -f '${db:Status-Status} ' tcpdump libpam-pwquality cryptsetup-bin snapd"
        ).split() == (["installed"] * 4)
        assert "hostonly" in look(one, "cat /etc/dracut.conf.d/99-usb-media.conf")
        release_file = look(one, "cat /etc/kairos-release")
        assert 'KAIROS_NAME="kairos-core-ubuntu-22.04"' in release_file
        assert 'KAIROS_IMAGE_LABEL="22.04-standard-amd64-generic"' in release_file
        assert "selinux=0" in boot_arguments(one)
        assert "systemd.unified_cgroup_hierarchy=1 rd.driver.blacklist=nouveau" in boot_arguments(one)
        assert look(one, "grep -c unified_cgroup /etc/cos/bootargs.cfg").strip() == "1"
    else:
        assert look(one, "/system/providers/agent-provider-kairos") == "k3s\n"
        assert "security=selinux selinux=1" in boot_arguments(one)
        assert look(one, "test ! -e /usr/bin/etcdctl; dpkg-query -W -f '${db:Status-Status}' zstd") == "installed"
    sentinel = look(one, "ls /etc/spectro-sysext 2>/dev/null || true").strip()
    assert sentinel == ("k8s-and-agent-provider-bundled" if release == "v4.10.0-rc.10" else "")
    assert "immucore" in look(one, "lsinitrd $(readlink -f /boot/initrd) | grep -o 'usr/bin/[a-z-]*'")

    iso = workspace.result("basic", "palette-edge-installer.iso")
    run(["sha256sum", "--check", "--strict", iso.name + ".sha256"], cwd=iso.parent)
    boot_tree = str(plan["boot-tree"][0]["tags"][0])  # type: ignore[index]
    user_data = iso_text(iso, boot_tree, "/files-iso/config.yaml")
    assert yaml.safe_load(user_data)["stylus"]["site"]["edgeHostToken"] == TOKEN
    menu = iso_text(iso, boot_tree, "/boot/grub2/grub.cfg")
    assert menu.count("menuentry '") == (3 if modern else 2)
    check_profile(workspace.result("basic", "cluster-profile.yaml"), images[0], versions[0])
    for artifact in json.loads(workspace.result("basic", "artifacts.json").read_text()):
        if artifact["kind"] == "provider-image":
            remote = engine.api.inspect_distribution(artifact["reference"])["Descriptor"]["digest"]
            assert remote == artifact["registry_digest"]
    for file in (workspace.root / "build/basic/logs").iterdir():
        assert TOKEN not in file.read_text()


def check_profile(file: Path, image: str, version: str) -> None:
    """What Palette makes of the profile is the name of the image that was built."""
    options = yaml.safe_load(file.read_text())["options"]
    uri = options["system.uri"]
    for name, value in options.items():
        uri = uri.replace("{{ .spectro.pack.edge-native-byoi.options." + name + " }}", value)
    assert uri.replace("{{ .spectro.system.kubernetes.version }}", version) == image


@pytest.mark.parametrize("release", RELEASES)
def test_advanced(workspace: Workspace, upstream: str, release: str) -> None:
    asked = arguments("advanced", release, upstream)
    workspace.call("build-all-images", *asked, "--push", env={"EDGE_HOST_TOKEN": TOKEN})
    plan = plan_of(workspace, asked)
    images = [str(target["tags"][0]) for target in plan["provider-image"]]  # type: ignore[index]
    assert all(image.startswith(f"{upstream}/advanced/opensuse-leap:k3s-") for image in images)
    assert all(image.endswith(f"-{release}-palette-learn") for image in images)
    check_layers(images)
    one = images[0]
    check_host_identity(one)
    assert look(one, "wg") == "stand-in for wireguard-tools\n"
    assert "wireguard-tools" in look(one, "rpm --dbpath /var/lib/rpm -qa")
    if release != "v3.4.3":
        assert look(one, "/usr/bin/apparmor_parser") == "stand-in for apparmor-parser\n"
        assert "kernel-de*" in look(one, "cat /etc/zypp/locks")
        assert "selinux=1" not in boot_arguments(one)
    assert workspace.result("advanced", "palette-edge-installer.iso.sha256").exists()


def test_wireguard_as_a_line_of_ones_own(workspace: Workspace, upstream: str) -> None:
    """The guide's `echo … >> Dockerfile`, here with Dockerfile.j2."""
    file = workspace.root / "Dockerfile.j2"
    before = file.read_text()
    try:
        file.write_text(before + WIREGUARD)
        asked = [*arguments("advanced", "v4.9.38", upstream), "--set", "os.packages=[]", "--set", "image.tag=own"]
        workspace.call("provider-image", "--k8s-version", "1.33.6", *asked)
    finally:
        file.write_text(before)
    assert look(f"{upstream}/advanced/opensuse-leap:k3s-1.33.6-v4.9.38-own", "wg") == "stand-in for wireguard-tools\n"


@pytest.mark.parametrize("distribution", ["rke2", "kubeadm"])
@pytest.mark.parametrize("release", ["v3.4.3", "v4.9.38"])
def test_other_kubernetes(workspace: Workspace, upstream: str, release: str, distribution: str) -> None:
    version = "1.25.2" if release == "v3.4.3" else "1.33.6"
    asked = [*arguments("basic", release, upstream), "--set", f"kubernetes.distribution={distribution}"]
    workspace.call("provider-image", "--k8s-version", version, *asked)
    image = f"{upstream}/basic/ubuntu:{distribution}-{version}-{release}-demo"
    package = f"k8s/rke2@{version}-rke2r1" if distribution == "rke2" else f"k8s/kubeadm@{version}"
    assert look(image, distribution) == package + "\n"
    containerd = look(image, "containerd 2>/dev/null || true").strip()
    assert containerd == ("container-runtime/containerd" if (release, distribution) == ("v3.4.3", "kubeadm") else "")


def test_login_of_the_package_repository_leaves_no_trace(workspace: Workspace, upstream: str) -> None:
    workspace.write("spectro-luet-auth.yaml", "auth:\n  username: me\n  password: hunter2-hunter2\n")
    asked = [*arguments("basic", "v4.9.38", upstream), "--set", "secrets.luet_auth=file:spectro-luet-auth.yaml"]
    workspace.call(
        "provider-image",
        "--k8s-version",
        "1.32.10",
        *asked,
        "--set",
        "image.tag=auth",
        env={"EDGE_HOST_TOKEN": TOKEN},
    )
    image = f"{upstream}/basic/ubuntu:k3s-1.32.10-v4.9.38-auth"
    assert look(image, "test -e /var/luet/db/authenticated; grep -rl hunter2 /etc /var /usr/bin/k3s || true") == ""
    assert "hunter2" not in run(["docker", "history", "--no-trunc", image]).stdout
    for file in workspace.result("basic", "inputs").iterdir():
        assert "hunter2" not in file.read_text()
