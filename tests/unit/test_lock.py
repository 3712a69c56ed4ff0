"""The lock file: what it is made for, what makes it stale, what a new one changes, and how builds take it."""

import shutil
from pathlib import Path

import pytest

from edgebuild.config import environment_names, load_environment
from edgebuild.errors import InputError
from edgebuild.inputs import Inputs
from edgebuild.lock import (
    Lock,
    apt_preferences,
    asked,
    difference,
    lock_path,
    lock_text,
    lockable_images,
    package_lines,
    parse_lock,
    parse_packages,
    pinned_package,
    staleness,
)
from edgebuild.model import Environment
from edgebuild.plan import make_plan
from edgebuild.render import render_bake, render_dockerfile
from edgebuild.session import Session, prepare, read_lock
from edgebuild.validate import problems

DIGESTS = ["sha256:" + digit * 64 for digit in "ab"]
MIRROR = 'registries.mirrors={"us-docker.pkg.dev": "mirror.example.com/palette"}'
BASE = "us-docker.pkg.dev/palette-images/edge/kairos-ubuntu:22.04-core-amd64-generic-v4.0.4"


def environment_of(root: Path, name: str, *settings: str) -> Environment:
    return load_environment(root, name, environ={}, settings=settings)


def lock_of(environment: Environment, own: str = "", **packages: str) -> Lock:
    return Lock(
        made_for=asked(environment, own),
        images=dict.fromkeys(lockable_images(environment).values(), DIGESTS[0]),
        base="",
        packages={"base-image": {"curl": "1.2-3", **packages}, "tools": {"mtools": "4.0-1"}},
    )


def dockerfile(root: Path, name: str, *settings: str, check_lock: bool = True, **packages: str) -> str:
    environment = environment_of(root, name, *settings)
    source = (root / "Dockerfile.j2").read_text(encoding="utf-8")
    plan = make_plan(name, environment)
    lock = lock_of(environment, **packages)
    return render_dockerfile(plan, environment, Inputs(), source, lock, check_lock=check_lock)


def test_the_same_lock_is_the_same_text(root: Path) -> None:
    lock = lock_of(environment_of(root, "basic"), zlib1g="1:1.2+dfsg~1", python3="3.11")
    text = lock_text(lock, "basic")
    assert parse_lock(text, "config/basic.lock.yaml") == lock
    assert lock_text(parse_lock(text, "config/basic.lock.yaml"), "basic") == text
    assert "./inv lock --env basic --update" in text
    assert "luet" in text


def test_a_lock_is_for_what_the_configuration_asks(root: Path) -> None:
    environment = environment_of(root, "basic")
    lock = lock_of(environment, "RUN x\n")
    assert staleness(lock, asked(environment, "RUN x\n")) == []
    assert staleness(lock, asked(environment, "\n# a comment\n  RUN x\n")) == []
    assert staleness(lock, asked(environment_of(root, "basic", MIRROR), "RUN x\n")) == []
    assert staleness(lock, asked(environment_of(root, "basic", "image.tag=other"), "RUN x\n")) == []
    assert staleness(lock, asked(environment, "RUN y\n")) == ["own lines of Dockerfile.j2: changed"]
    more = environment_of(root, "basic", "os.packages=[nginx, vim]")
    assert staleness(lock, asked(more, "RUN x\n")) == ["os.packages: locked for none, now nginx vim"]
    other = staleness(lock, asked(environment_of(root, "basic", "os.version=24"), "RUN x\n"))
    assert "os.version: locked for 22.04, now 24.04" in other
    assert f"image base: locked for {BASE}, now {BASE.replace('22.04', '24.04')}" in other
    lacking = lock.model_copy(update={"images": {}})
    assert f"image {BASE} has no digest" in staleness(lacking, asked(environment, "RUN x\n"))


def test_what_no_build_pulls_is_not_locked(root: Path) -> None:
    assert lockable_images(environment_of(root, "demo")) == {}
    assert "k8s_package_repository" not in lockable_images(environment_of(root, "basic"))
    assert "kairos_provider" in lockable_images(environment_of(root, "basic"))
    assert "kairos_provider" not in lockable_images(environment_of(root, "basic", "kubernetes.payload=none"))


def test_a_new_lock_in_words(root: Path) -> None:
    environment = environment_of(root, "basic")
    old = lock_of(environment, wireguard="1.0", gone="1")
    images = {**old.images, BASE: DIGESTS[1]}
    packages = {**old.packages, "base-image": {"curl": "1.2-3", "wireguard": "1.1", "x": "2"}}
    new = old.model_copy(update={"images": images, "packages": packages, "base": "c" * 64})
    assert difference(old, old) == []
    assert difference(old, new) == [
        f"image {BASE}: digest moved from sha256:aaaaaaaaaaaa to sha256:bbbbbbbbbbbb",
        "base made from packages: its SHA-256 is now cccccccccccc",
        "package gone 1 removed (base-image)",
        "package wireguard 1.0 -> 1.1 (base-image)",
        "package x 2 added (base-image)",
    ]
    first = difference(None, new)
    assert first[-2:] == ["base-image: 3 packages", "tools: 1 packages"]
    assert f"image {BASE}: sha256:bbbbbbbbbbbb" in first


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("schema: 1", "schema: 2", "config/x.lock.yaml:31: schema: "),
        ("curl: 1.2-3", "curl: '1.2; reboot'", "packages.base-image.curl: string should match pattern"),
        ("curl: 1.2-3", "curl: '1.2\n\n      EOF'", "packages.base-image.curl: string should match pattern"),
        ("curl: 1.2-3", "cu rl: 1.2-3", "packages.base-image.cu rl: string should match pattern"),
        ("curl: 1.2-3", "curl: [1]", "packages.base-image.curl: input should be a valid string"),
        (DIGESTS[0], "latest", "config/x.lock.yaml:6: images.docker.io/library/debian:12-slim: string should match"),
        ("  tools:", "  tool:", "packages: expected the packages of base-image and tools"),
        ("base: ''", "base: abc", "config/x.lock.yaml:4: base: string should match pattern"),
        ("base: ''", "base: ''\nmore: 1", "config/x.lock.yaml:5: more: extra inputs are not permitted"),
        ("base: ''", "base: '", "config/x.lock.yaml:"),
        ("base: ''", "base: ''\nbase: ''", "base stands there twice"),
    ],
)
def test_what_no_lock_wrote_is_refused(root: Path, old: str, new: str, expected: str) -> None:
    text = lock_text(lock_of(environment_of(root, "basic")), "x")
    assert old in text
    with pytest.raises(InputError) as caught:
        parse_lock(text.replace(old, new, 1), "config/x.lock.yaml")
    assert expected in caught.value.message
    assert "./inv lock --env x" in caught.value.hint


def test_an_empty_lock_is_refused() -> None:
    with pytest.raises(InputError, match="the file is empty"):
        parse_lock("", "config/x.lock.yaml")


def test_images_by_digest_wherever_they_come_from(root: Path) -> None:
    text = dockerfile(root, "basic", MIRROR)
    mirrored = BASE.replace("us-docker.pkg.dev", "mirror.example.com/palette")
    assert f"FROM {mirrored}@{DIGESTS[0]} AS upstream-base" in text
    assert "FROM docker.io/library/debian:12-slim@" in text
    assert not [line for line in text.splitlines() if line.startswith("FROM ") and "/" in line and "@" not in line]
    assert "--url mirror.example.com/palette/palette-images/edge/luet-repo-amd " in text


def test_apt_takes_locked_versions_by_preferences(root: Path) -> None:
    text = dockerfile(root, "basic", "os.packages=[nginx]")
    steps = [line for line in text.replace("\\\n", "").splitlines() if line.startswith("RUN") and "apt-get" in line]
    assert len(steps) >= 4
    assert not [step for step in steps if "target=/etc/apt/preferences.d/" not in step and "qemu" not in step]
    preferences = "Package: curl\nPin: version 1.2-3\nPin-Priority: 995"
    assert f"COPY <<'EOF' /base-image.preferences\n{preferences}\nEOF\n" in text
    assert "COPY <<'EOF' /tools.packages\nmtools 4.0-1\nEOF\n" in text
    assert text.count("# every package as it is locked") == 2
    assert "again='; ./inv lock --env basic --update'" in text


def test_zypper_is_asked_for_locked_versions(root: Path) -> None:
    text = dockerfile(root, "advanced", vim="9-1", kernel="1 2")
    assert "install -y zstd vim=9-1 iputils bridge-utils curl=1.2-3 ethtool" in text
    assert "/base-image.preferences" not in text
    assert pinned_package("dnf", "openssl", {"openssl": "3-1"}) == "openssl-3-1"
    assert pinned_package("zypper", "kernel", {"kernel": "1 2"}) == "kernel"
    assert pinned_package("apt", "curl", {"curl": "1"}) == "curl"


def test_locking_anew_pins_but_does_not_check(root: Path) -> None:
    text = dockerfile(root, "basic", check_lock=False)
    assert "every package as it is locked" not in text
    assert "Pin: version 1.2-3" in text


def test_tools_can_be_built_alone(root: Path) -> None:
    environment = environment_of(root, "demo")
    assert '"edgebuild/tools:demo"' in render_bake(make_plan("demo", environment), environment, "")


def test_packages_of_a_database() -> None:
    found = parse_packages("zsh 5\nkernel 2\nkernel 1\nadduser 3.134\n")
    assert found == {"adduser": "3.134", "kernel": "1 2", "zsh": "5"}
    assert list(found) == ["adduser", "kernel", "zsh"]
    assert package_lines(found) == ["adduser 3.134", "kernel 1", "kernel 2", "zsh 5"]
    assert apt_preferences({"a": "1", "kernel": "1 2"}) == "Package: a\nPin: version 1\nPin-Priority: 995"


def test_a_stale_lock_fails_validation(root: Path, tmp_path: Path) -> None:
    for name in ("config", "overlay", "certs"):
        shutil.copytree(root / name, tmp_path / name)
    for name in ("Dockerfile.j2", "user-data.j2"):
        shutil.copy2(root / name, tmp_path / name)
    file = tmp_path / lock_path("demo")
    file.write_text(lock_text(lock_of(environment_of(root, "demo")), "demo"))
    assert environment_names(tmp_path) == environment_names(root)
    environment = load_environment(tmp_path, "demo", environ={})
    session = Session(
        tmp_path, environment, make_plan("demo", environment), lock=read_lock(tmp_path, "demo", environment)
    )
    assert "Pin: version 1.2-3" in prepare(session, with_secrets=False).texts["Dockerfile"]
    with (tmp_path / "config/demo.yaml").open("a") as config:
        config.write("lock: true\n")
    own = tmp_path / "config/demo.yaml"
    own.write_text(own.read_text().replace("bootstrap: bookworm", "bootstrap: bookworm\n  packages: [nginx]"))
    found = [problem for problem in problems(tmp_path, tmp_path / "stale") if "lock" in problem]
    assert found == [
        "environment demo: config/demo.lock.yaml is stale:\n  os.packages: locked for none, now nginx\n"
        "  hint: ./inv lock --env demo"
    ]
    own.write_text(own.read_text().replace("lock: true", "lock: false"))
    assert read_lock(tmp_path, "demo", load_environment(tmp_path, "demo", environ={})) is None
