"""User-data: values survive whatever they hold, and what is wrong is named without its value."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgebuild.cloudconfig import check_user_data, password_hash, render_user_data
from edgebuild.errors import InputError

HEAD = "#cloud-config\n"
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def values(token: str = "", hashed: str = "x") -> dict[str, Any]:
    return {"secrets": {"edge_host_token": token}, "user": {"name": "kairos", "password_hash": hashed}}


@pytest.fixture(scope="session")
def template(root: Path) -> str:
    return (root / "user-data.j2").read_text(encoding="utf-8")


@given(token=TEXT.filter(bool), password=TEXT)
def test_values_survive(template: str, token: str, password: str) -> None:
    text = render_user_data(template, values(token, password))
    parsed = yaml.safe_load(text)
    assert parsed["stylus"]["site"]["edgeHostToken"] == token
    assert parsed["users"][0]["passwd"] == password
    assert parsed["install"] == {"poweroff": True}


def test_it_is_the_guides(template: str) -> None:
    text = render_user_data(template, values("token"))
    assert text.startswith(HEAD)
    assert check_user_data(text) == []
    assert "stylus" not in yaml.safe_load(render_user_data(template, values()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ nothing }}", "user-data.j2:1: 'nothing' is undefined"),
        ("a\n{{ user.nothing }}", "user-data.j2:2: "),
        ("a\n{% if %}", "user-data.j2:2: "),
        ("{{ ''.__class__.__mro__ }}", "user-data.j2:1: "),
    ],
)
def test_wrong_template(text: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        render_user_data(text, values())
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stylus: {}\n", "the first line must be #cloud-config"),
        (HEAD + "stylus:\n  site: {}\n stages: {}\n", "found '<block mapping start>' (rendered line 4)"),
        (HEAD + "install: {}\ninstall: {}\n", "install stands there twice"),
        (HEAD + "a\n", "expected `key: value` lines"),
        (HEAD + "stylus: {site: {edgeHostTokn: x}}", "stylus.site.edgeHostTokn: no such key; did you mean edgeHostToken?"),
        (HEAD + "stylus: {registryCredentials: {password: }}", "stylus.registryCredentials.password: expected a string, got null"),
        (HEAD + "stylus: {debug: 'yes'}", "stylus.debug: expected true or false, got a string"),
        (HEAD + "stylus: {managementMode: remote}", "stylus.managementMode: expected one of central, local"),
        (HEAD + "stylus: {site: {paletteEndpoint: 'https://x'}}", "stylus.site.paletteEndpoint: expected a host without scheme"),
        (HEAD + "stylus: {site: {name: a/b}}", "stylus.site.name: expected a name"),
        (HEAD + "install: {reboot: true, poweroff: true}", "reboot and poweroff cannot both be true"),
        (HEAD + "install: {device: sda}", "install.device: expected auto, /dev/"),
        (HEAD + "install: {partitions: {oem: {size: big}}}", "install.partitions.oem.size: expected a whole number"),
        (HEAD + "instal: {}", "instal: no such key; did you mean install?"),
        (HEAD + "users: {kairos: {}}", "users: expected a list, got a mapping"),
        (HEAD + "users: [{nam: x}]", "users[0].nam: no such key; did you mean name?"),
        (HEAD + "stages: {initramfs: [{users: [x]}]}", "stages.initramfs[0].users: expected a mapping, got a list"),
        (HEAD + "stages: {boot: [{command: [x]}]}", "stages.boot[0].command: no such key; did you mean commands?"),
        (HEAD + "a: " + "x" * 2_000_000, "larger than 2 MB"),
    ],
)  # fmt: skip
def test_wrong_user_data(text: str, expected: str) -> None:
    problems = check_user_data(text)
    assert any(expected in problem for problem in problems), problems


def test_all_documented_parts() -> None:
    text = (
        HEAD
        + """
stylus:
  site:
    edgeHostToken: t
    paletteEndpoint: api.example.com
    network: {interfaces: {eth0: {type: static, ipAddress: 10.0.0.2/24, gateway: 10.0.0.1}}}
install: {device: /dev/sda, bind_mounts: [/var/lib/x], grub_options: {extra_cmdline: fips=1}}
stages:
  initramfs:
    - users: {kairos: {passwd: kairos, groups: [sudo]}}
      files: [{path: /a, permissions: 0644, content: x}]
"""
    )
    assert check_user_data(text) == []


def test_password_hash() -> None:
    hashed = password_hash("kairos", seed="demo/kairos")
    assert hashed.startswith("$6$")
    assert hashed == password_hash("kairos", seed="demo/kairos")
    assert hashed != password_hash("kairos", seed="shop/kairos")
    assert password_hash(hashed, seed="other") == hashed
    from passlib.hash import sha512_crypt

    assert sha512_crypt.verify("kairos", hashed)
