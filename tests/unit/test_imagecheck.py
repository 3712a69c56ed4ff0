"""Facts of images, and the judgement of them."""

import re
from dataclasses import replace

import pytest

from edgebuild.imagecheck import PROGRAMS, RELEASE_KEYS, Facts, image_problems, initrd_problems, parse_facts

SOUND = Facts(
    kernels=("6.1.0",),
    resolves=frozenset({"/boot/vmlinuz", "/boot/initrd"}),
    initrd_sha256="0" * 64,
    release=dict.fromkeys(RELEASE_KEYS, "x"),
    programs=frozenset(PROGRAMS),
    has_var_lock=True,
    boot_arguments_mode="644",
)


def test_facts_are_read_line_by_line() -> None:
    text = 'kernel\t6.1.0\nnoise\nresolves\t/boot/initrd\nrelease\tKAIROS_ID="kairos"\nmasked\tgetty.target\n'
    facts = parse_facts(text + "host-key\t/etc/ssh/ssh_host_rsa_key\nexists\t/var/lock\nbootargs\t600\n")
    assert facts.kernels == ("6.1.0",)
    assert facts.resolves == {"/boot/initrd"}
    assert facts.release == {"KAIROS_ID": "kairos"}
    assert facts.masked == {"getty.target"}
    assert facts.host_keys == ("/etc/ssh/ssh_host_rsa_key",)
    assert facts.has_var_lock
    assert facts.boot_arguments_mode == "600"


def test_a_sound_image() -> None:
    assert image_problems(SOUND, kairos=True, family="apt") == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kernels": ()}, "/lib/modules: one kernel must be there, and there are none"),
        ({"kernels": ("5", "6")}, "there are 5, 6"),
        ({"resolves": frozenset({"/boot/vmlinuz"})}, "/boot/initrd: is missing, or leads nowhere"),
        ({"host_keys": ("/etc/ssh/ssh_host_rsa_key",)}, "ssh_host_rsa_key: a host key that every host would share"),
        ({"machine_id": "abc"}, "/etc/machine-id: every host would have the same"),
        ({"has_var_lock": False}, "/var/lock: is missing"),
        ({"masked": frozenset({"getty.target"})}, "getty.target: is masked"),
        ({"release": {}}, "/etc/kairos-release: KAIROS_MODEL is missing"),
        ({"release": dict.fromkeys(RELEASE_KEYS, "")}, "/etc/kairos-release: KAIROS_MODEL is empty"),
        ({"programs": frozenset()}, "immucore: is missing"),
        ({"boot_arguments_mode": "600"}, "/etc/cos/bootargs.cfg: has mode 600, and grub needs 644"),
        ({"boot_arguments_mode": ""}, "/etc/cos/bootargs.cfg: is missing"),
    ],
)
def test_each_flaw_is_named(change: dict[str, object], says: str) -> None:
    found = image_problems(replace(SOUND, **change), kairos=True, family="apt")  # type: ignore[arg-type]
    assert any(re.search(re.escape(says), problem) for problem in found), found


def test_what_does_not_apply_is_not_asked() -> None:
    plain = replace(SOUND, release={}, programs=frozenset(), boot_arguments_mode="")
    assert image_problems(plain, kairos=False, family="apt") == []
    masked = replace(SOUND, masked=frozenset({"systemd-udevd.service"}))
    assert image_problems(masked, kairos=True, family="apt") == []
    assert image_problems(masked, kairos=True, family="dnf") == ["systemd-udevd.service: is masked"]


def test_initrd() -> None:
    assert initrd_problems(["usr/bin/immucore", "usr/bin/kairos-agent"], kairos=True) == []
    assert initrd_problems(["usr/bin/immucore"], kairos=True) == ["/boot/initrd: lacks kairos-agent"]
    assert initrd_problems([], kairos=False) == ["/boot/initrd: lacks dmsquash-live-root"]
