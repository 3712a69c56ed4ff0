"""What Docker makes of values that try to break out, in one real build; and what grub makes of them, in QEMU."""

import json
from pathlib import Path

import pytest

from edgebuild import quoting
from edgebuild.container import container_argv
from edgebuild.run import run
from edgebuild.session import open_session, prepare
from edgebuild.workflow import build_boot_tools
from tests.conftest import Workspace
from tests.integration.images import inspect
from tests.unit.nasty import ONE_LINE

IMAGE = "edgebuild-tests/quoting:1"
READ = """
cat /line /script
cd /names
find . -type f -printf '%f\\0' -exec cat {} \\; -printf '\\0'
"""
NAMES = [name for name in dict.fromkeys(ONE_LINE) if name.strip(".") and "/" not in name]
SHOWN_BY_GRUB = [text for text in ONE_LINE if text.isascii() and text.isprintable() and len(text) < 70]


def test_docker_gets_every_value_as_it_was(debian_image: str, tmp_path: Path) -> None:
    """ENV, COPY, both forms of RUN, and labels through the bake file."""
    (tmp_path / "certs").mkdir()
    for number, name in enumerate(NAMES):
        (tmp_path / "certs" / name).write_text(str(number))
    (tmp_path / "certs/wrong").write_text("what a pattern would find")
    words = " ".join(map(quoting.shell, ONE_LINE))
    dockerfile = [f"FROM {debian_image}", "ENV x=expanded"]
    dockerfile += [f"ENV V{number}={quoting.dockerfile_word(text)}" for number, text in enumerate(ONE_LINE)]
    dockerfile += [f"COPY {quoting.dockerfile_copy(f'certs/{name}', f'/names/{name}')}" for name in NAMES]
    dockerfile += [
        f"RUN printf '%s\\0' {words} > /line",
        "RUN <<'EOF'",
        f"printf '%s\\0' {words} > /script",
        "EOF",
        "",
    ]
    target = {
        "context": str(tmp_path),
        "dockerfile-inline": "\n".join(dockerfile),
        "labels": {f"label{number}": text for number, text in enumerate(ONE_LINE)},
        "tags": [IMAGE],
        "output": ["type=docker"],
    }
    bake = tmp_path.parent / "bake.json"
    bake.write_text(json.dumps(quoting.hcl({"target": {"all": target}})))
    try:
        run(["docker", "buildx", "bake", "--file", bake, "all"], env={"BUILDX_NO_DEFAULT_ATTESTATIONS": "1"})
        config = inspect(IMAGE)["Config"]
        found = dict(entry.split("=", 1) for entry in config["Env"])
        assert [found[f"V{number}"] for number in range(len(ONE_LINE))] == ONE_LINE
        labels = [config["Labels"][f"label{number}"] for number in range(len(ONE_LINE))]
        assert labels == [text.removeprefix("\ufeff") for text in ONE_LINE]  # bake drops a byte order mark
        argv = container_argv(IMAGE, ["sh", "-c", READ], name="edgebuild-tests-quoting", read={})
        parts = run(argv, check=False).stdout.split("\0")[:-1]
    finally:
        run(["docker", "image", "rm", "--force", IMAGE], check=False)
    count = len(ONE_LINE)
    assert parts[:count] == ONE_LINE
    assert parts[count : 2 * count] == ONE_LINE
    names = parts[2 * count :]
    assert dict(zip(names[::2], names[1::2], strict=True)) == {name: str(number) for number, name in enumerate(NAMES)}


@pytest.fixture
def boot_tools(workspace: Workspace, demo: object) -> str:
    """The image with QEMU and grub."""
    session = open_session(workspace.root, "demo", [])
    build_boot_tools(session, prepare(session, with_secrets=False))
    return "edgebuild/boot-tools:demo"


BOOT_GRUB = """
set -eu
mkdir -p /tmp/cd/boot/grub
cp /in/grub.cfg /tmp/cd/boot/grub/
grub-mkimage -O i386-pc -p /boot/grub -o /tmp/core.img biosdisk iso9660 normal serial terminal echo halt
cat /usr/lib/grub/i386-pc/cdboot.img /tmp/core.img > /tmp/cd/boot/eltorito.img
xorriso -as mkisofs -quiet -o /tmp/cd.iso -b boot/eltorito.img -no-emul-boot -boot-load-size 4 -boot-info-table \
    --grub2-boot-info /tmp/cd 2> /dev/null
exec qemu-system-x86_64 -m 64 -display none -nic none -serial stdio -cdrom /tmp/cd.iso -no-reboot
"""


def test_grub_reads_every_word_as_it_was(boot_tools: str, tmp_path: Path) -> None:
    menu = ["serial --unit=0 --speed=115200", "terminal_output serial"]
    menu += [f"echo {quoting.grub(f'<{number}:{text}>')}" for number, text in enumerate(SHOWN_BY_GRUB)]
    menu += [f"echo before {quoting.grub(text)} '<after {number}>'" for number, text in enumerate(ONE_LINE)]
    (tmp_path / "grub.cfg").write_text("\n".join([*menu, "echo '<end>'", "halt", ""]), encoding="utf-8")
    argv = container_argv(boot_tools, ["sh", "-c", BOOT_GRUB], name="edgebuild-tests-grub", read={"/in": tmp_path})
    shown = run(argv, timeout=300).stdout
    assert "<end>" in shown
    assert [text for number, text in enumerate(SHOWN_BY_GRUB) if f"<{number}:{text}>" not in shown] == []
    assert [
        text for number, text in enumerate(ONE_LINE) if f"<after {number}>" not in shown.replace("\n\r", "")
    ] == []
