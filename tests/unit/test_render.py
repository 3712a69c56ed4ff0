"""What is rendered: the fork's lines, quoting, bake file, menu and profile."""

import json
import re
import sys
from pathlib import Path
from unittest.mock import Mock

import jinja2
import pytest
import yaml

from edgebuild.config import load_environment
from edgebuild.errors import InputError
from edgebuild.grub import render_menu
from edgebuild.inputs import Inputs
from edgebuild.model import Environment
from edgebuild.plan import make_plan
from edgebuild.render import MARKER, CompiledTemplates, render_bake, render_dockerfile, render_profile


def environment_of(root: Path, name: str, *settings: str) -> Environment:
    return load_environment(root, name, environ={}, settings=settings)


def dockerfile(root: Path, name: str, *settings: str, own: str = "", inputs: Inputs | None = None) -> str:
    environment = environment_of(root, name, *settings)
    source = (root / "Dockerfile.j2").read_text(encoding="utf-8") + own
    return render_dockerfile(make_plan(name, environment), environment, inputs or Inputs(), source)


def stage(text: str, name: str) -> str:
    match = re.search(rf"^FROM \S+ AS {re.escape(name)}\n(.*?)(?=^FROM |\Z)", text, re.S | re.M)
    assert match, name
    return match[1]


def test_own_lines_go_into_installer_and_provider_images(root: Path) -> None:
    text = dockerfile(root, "basic", own="RUN apt-get install -y nginx\n")
    assert "nginx" in stage(text, "customized")
    assert text.count("nginx") == 1
    assert "{{" not in text.replace("{{.Server", "")
    assert "{%" not in text


def test_wireguard_both_ways(root: Path) -> None:
    assert "zypper --non-interactive install -y wireguard-tools" in stage(dockerfile(root, "advanced"), "customized")
    package = stage(dockerfile(root, "basic", "os.packages=[wireguard-tools]"), "customized")
    assert "apt-get install -y --no-install-recommends wireguard-tools" in package
    own = dockerfile(root, "basic", own="RUN sudo apt-get install -y wireguard-tools\n")
    assert "sudo apt-get install -y wireguard-tools" in stage(own, "customized")


def test_the_marker_may_not_be_lost(root: Path) -> None:
    environment = environment_of(root, "basic")
    source = (root / "Dockerfile.j2").read_text(encoding="utf-8").replace(MARKER, "")
    with pytest.raises(InputError, match="the line '# Add any other image customizations here' is missing"):
        render_dockerfile(make_plan("basic", environment), environment, Inputs(), source)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ("RUN {{ nothing }}\n", "'nothing' is undefined"),
        ("RUN {% if %}\n", "customizations:"),
        ("{{ os.nam }}", "nam"),
    ],
)
def test_wrong_templates_name_the_line(root: Path, own: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        dockerfile(root, "basic", own=own)


def test_provider_images_add_linked_layers_only(root: Path) -> None:
    text = dockerfile(root, "basic")
    for version in ("1-33-6", "1-32-10"):
        lines = [line for line in stage(text, f"provider-image-{version}").splitlines() if line and line[0] != "#"]
        assert lines == [
            "COPY --link --from=provider-files /payload/ /",
            f"COPY --link --from=kubernetes-{version} /output/ /",
        ]


def test_the_release_lines_differ_by_data(root: Path) -> None:
    old = dockerfile(root, "basic", "release=v3.4.3", "kubernetes.versions=all")
    new = dockerfile(root, "basic", "release=v4.10.0-rc.10")
    assert "COPY --link --from=upstream-base /usr/bin/luet" in old
    assert 'ENV SPECTRO_LUET_VERSION="v1.0.4"' in old
    assert "kairos-release" not in old
    assert "xhci_pci_renesas" in new
    assert "k8s-and-agent-provider-bundled" in new
    assert "systemctl --version" in new
    assert "systemctl --version" not in dockerfile(root, "basic", "release=v4.10.0-rc.10", "kubernetes.bundle=true")


def test_kubeadm_of_the_old_line_brings_containerd(root: Path) -> None:
    text = dockerfile(
        root, "basic", "release=v3.4.3", "kubernetes.distribution=kubeadm", "kubernetes.versions=1.25.2"
    )
    assert "luet install -y container-runtime/containerd k8s/kubeadm@1.25.2 --system-target /output" in text


def test_the_files_of_the_repository(root: Path) -> None:
    inputs = Inputs(
        certificates=("certs/my ca.pem",), overlay=("etc/a", "etc/spectrocloud/custom-hardware-specs-lookup.json")
    )
    text = dockerfile(root, "basic", inputs=inputs)
    line = 'COPY ["certs/my ca.pem", "/usr/local/share/ca-certificates/my ca.crt"]'
    assert line in stage(text, "customized")
    assert line in stage(text, "tools")
    assert "COPY overlay/files/etc/ /etc/" in stage(text, "provider-image-1-33-6")
    assert "COPY overlay/files/ /" in stage(text, "iso-image")
    assert "custom-hardware-specs-lookup.json /etc/spectrocloud/" in stage(text, "customized")
    suse = dockerfile(root, "advanced", inputs=inputs)
    assert "/usr/share/pki/trust/anchors/my ca.crt" in suse


def test_bake_file(root: Path) -> None:
    environment = environment_of(
        root, "basic", "proxy.http=http://proxy:3128", "proxy.no_proxy=[a, b]", "secrets.luet_auth=env:LUET"
    )
    text = render_bake(make_plan("basic", environment), environment, "FROM x\nRUN echo ${a} %{b}\n")
    targets = json.loads(text)["target"]
    shared = targets["_pipeline"]
    assert shared["dockerfile-inline"] == "FROM x\nRUN echo $${a} %%{b}\n"
    assert shared["args"]["HTTP_PROXY"] == shared["args"]["http_proxy"] == "http://proxy:3128"
    assert shared["args"]["NO_PROXY"] == "a,b"
    assert shared["secret"] == ["id=luet_auth,env=EDGEBUILD_SECRET_LUET_AUTH"]
    assert set(targets) == {
        "_pipeline", "base-image", "provider-image-1-33-6", "provider-image-1-32-10", "iso-image", "boot-tree", "tools", "boot-tools",
    }  # fmt: skip


def test_menu(root: Path) -> None:
    menu = render_menu(environment_of(root, "basic", "iso.kernel_arguments=[quiet]"))
    assert menu.count("menuentry '") == 3
    assert "set default=0" in menu
    efi = "console=ttyS0,115200n8 console=tty0 rd.cos.disable nodepair.enable selinux=0 rd.live.overlay.overlayfs"
    assert efi in menu
    assert "console=tty1 console=ttyS0 rd.cos.disable vga=795 nomodeset nodepair.enable selinux=0" in menu
    assert "nouveau.modeset=0 quiet interactive-install\n" in menu
    assert "set default=2" in render_menu(environment_of(root, "basic", "iso.interactive=true"))
    old = environment_of(root, "basic", "release=v3.4.3", "kubernetes.versions=all", "iso.interactive=true")
    with pytest.raises(InputError, match=r"release v3.4.3 has no interactive installer"):
        render_menu(old)


def test_titles_are_quoted_for_grub(root: Path) -> None:
    menu = render_menu(
        environment_of(root, "basic", "grub.entries=[{title: \"Owner's $(reboot)\", arguments: '', trailing: ''}]")
    )
    assert "menuentry 'Owner'\\''s $(reboot)'" in menu


@pytest.mark.parametrize("tag", ["demo", ""])
def test_profile_names_the_built_image(root: Path, tag: str) -> None:
    environment = environment_of(root, "basic", f"image.tag={tag}")
    options = yaml.safe_load(render_profile(environment))["options"]
    uri = options["system.uri"]
    for name, value in options.items():
        uri = uri.replace("{{ .spectro.pack.edge-native-byoi.options." + name + " }}", value)
    uri = uri.replace("{{ .spectro.system.kubernetes.version }}", "1.33.6")
    assert uri == make_plan("basic", environment).of_kind("provider-image")[0].tags[0]


def test_the_guides_profile(root: Path) -> None:
    text = render_profile(environment_of(root, "basic", "release=v3.4.3", "kubernetes.versions=all"))
    assert text.startswith(
        'pack:\n  content:\n    images:\n      - image: "{{.spectro.pack.edge-native-byoi.options.system.uri}}"\noptions:\n'
    )
    for line in (
        "system.registry: ttl.sh",
        "system.repo: ubuntu",
        "system.k8sDistribution: k3s",
        "system.peVersion: v3.4.3",
    ):
        assert f"  {line}\n" in text


@pytest.mark.parametrize("name", ["demo", "basic", "advanced"])
def test_steps_have_a_network_only_to_install_something(root: Path, name: str) -> None:
    text = dockerfile(root, name, inputs=Inputs(certificates=("certs/a.pem",), overlay=("etc/a",)))
    steps = re.split(r"^(?=[A-Z]+ )", text, flags=re.M)
    online = [step for step in steps if step.startswith("RUN ") and not step.startswith("RUN --network=none ")]
    assert len(online) < len([step for step in steps if step.startswith("RUN ")])
    for step in online:
        assert re.search(r"apt-get (update|install)|zypper .*(install|update)|luet (install|repo)", step), step


def test_values_in_lines_of_ones_own(root: Path) -> None:
    own = "ENV A={{ 'x $y' | dockerfile }}\nCOPY {{ 'a b' | copied_to('/etc/c') }}\nRUN echo {{ 'it is $x' | sh }}\n"
    assert 'ENV A="x \\$y"\nCOPY ["a b", "/etc/c"]\nRUN echo \'it is $x\'\n' in dockerfile(root, "basic", own=own)
    with pytest.raises(InputError, match=r"customizations:\d: 'amd64\\nRUN b' cannot stand in one line"):
        dockerfile(root, "basic", own="RUN echo {{ (os.arch ~ '\\nRUN b') | sh }}\n")


def test_compiled_templates_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And where nothing can be written, rendering goes on without."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)

    def rendered() -> str:
        cache, loader = CompiledTemplates(str(tmp_path / "kept")), jinja2.DictLoader({"x.j2": "{{ 6 * 7 }}"})
        return jinja2.Environment(loader=loader, bytecode_cache=cache).get_template("x.j2").render()  # noqa: S701

    with monkeypatch.context() as patched:
        patched.setattr(Path, "mkdir", Mock(side_effect=PermissionError))
        assert rendered() == "42"
    assert not list(tmp_path.iterdir())
    assert (rendered(), rendered()) == ("42", "42")
    assert len(list(tmp_path.rglob("*.cache"))) == 1
