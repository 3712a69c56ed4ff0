"""The lock file on the real engine, archive and registry: made, taken, tampered with, renewed."""

import os
from pathlib import Path

import pytest
import yaml

from edgebuild.lock import apt_preferences
from edgebuild.run import Result, run
from tests.conftest import Workspace, copy_repository

PACKAGE = """
FROM {image}
RUN mkdir -p /deb/DEBIAN && printf 'Package: shop\\nVersion: {version}\\nArchitecture: all\\n\
Maintainer: tests <tests@localhost>\\nDescription: x\\n' > /deb/DEBIAN/control \
 && dpkg-deb --build /deb /shop_{version}.deb && dpkg --install /shop_{version}.deb && rm -r /deb
"""


def test_the_demo_is_locked_to_what_is_installed(workspace: Workspace, demo: Result) -> None:
    """Made from the packages of the build; another version in the lock is one clear line."""
    file = workspace.root / "config/demo.lock.yaml"
    try:
        before = os.umask(0o077)
        made = workspace.call("lock", "--env", "demo")
        os.umask(before)
        assert "base-image: " in made.stdout
        lock = yaml.safe_load(file.read_text())
        script = ["dpkg-query", "-W", "-f", "${Package} ${Version}\n"]
        told = run(["docker", "run", "--rm", "--network", "none", "edgebuild/base-image:demo", *script]).stdout
        assert dict(line.split(" ") for line in told.splitlines()) == lock["packages"]["base-image"]
        assert "xorriso" in lock["packages"]["tools"]
        assert "xorriso" not in lock["packages"]["base-image"]
        assert len(lock["base"]) == 64
        assert file.stat().st_mode & 0o777 == 0o644
        assert "is up to date" in workspace.call("lock", "--env", "demo").stdout
        assert "demo.lock" not in workspace.call("config.environments").stdout

        version = lock["packages"]["tools"]["xorriso"]
        file.write_text(file.read_text().replace(f"xorriso: {version}", "xorriso: 0.9-1"))
        failed = workspace.call("iso", "--env", "demo", check=False)
        line = f"xorriso is locked to 0.9-1, the archive has {version}; ./inv lock --env demo --update"
        assert (failed.returncode, f"error: {line}" in failed.stderr) == (1, True), failed.stderr

        stale = workspace.call("iso", "--env", "demo", "--set", "os.packages=[nginx]", check=False)
        assert (stale.returncode, "os.packages: locked for none, now nginx" in stale.stderr) == (2, True), (
            stale.stderr
        )
        file.write_text(file.read_text().replace(lock["base"], "0" * 64))
        other = workspace.call("iso", "--env", "demo", check=False)
        assert other.returncode == 1
        assert "the base made from Debian's packages is another one" in other.stderr
    finally:
        file.unlink(missing_ok=True)


@pytest.fixture
def shop(debian_image: str, registry: str):  # type: ignore[no-untyped-def]
    """Gives the tag shop/base:1 of the registry an image whose package `shop` has this version."""
    reference = f"{registry}/shop/base:1"

    def give(version: str) -> str:
        text = PACKAGE.format(image=debian_image, version=version)
        run(["docker", "buildx", "build", "--tag", reference, "--output", "type=docker", "-"], stdin=text)
        run(["docker", "push", "--quiet", reference])
        run(["docker", "image", "rm", reference])
        return reference

    return give


def test_an_image_that_moves_under_its_tag(workspace: Workspace, tmp_path: Path, shop) -> None:  # type: ignore[no-untyped-def]
    """Builds keep the locked one, and --update tells the difference. Steps that install packages are left out."""
    reference = shop("1.0")
    other = copy_repository(tmp_path / "other")
    pipeline = other.root / "Dockerfile.j2"
    pipeline.write_text(pipeline.read_text().replace("{{ system.base_image() }}", ""))
    other.write("edgebuild/templates/tools.j2", "")
    other.write(
        "config/shop.yaml",
        f"schema: 1\nos: {{base_image: {reference}}}\nkubernetes: {{payload: none, versions: 1.33.6}}\n"
        f"images: {{agent: {reference}, tools: {reference}}}\n",
    )
    file = other.root / "config/shop.lock.yaml"
    other.call("lock", "--env", "shop")
    lock = yaml.safe_load(file.read_text())
    assert lock["packages"]["base-image"]["shop"] == "1.0"
    assert list(lock["images"]) == [reference]

    shop("1.1")
    good = file.read_text()
    file.write_text(good.replace("shop: '1.0'", "shop: '0.9'"))
    failed = other.call("base-image", "--env", "shop", check=False)
    assert "shop is locked to 0.9, the archive has 1.0; ./inv lock --env shop --update" in failed.stderr
    file.write_text(good)
    assert "is up to date" in other.call("lock", "--env", "shop").stdout
    assert file.read_text() == good

    words = other.call("lock", "--env", "shop", "--update").stdout
    assert f"image {reference}: digest moved from {lock['images'][reference][:19]} to sha256:" in words
    assert "package shop 1.0 -> 1.1 (base-image)" in words
    assert yaml.safe_load(file.read_text())["packages"]["base-image"]["shop"] == "1.1"
    assert "nothing changed" in other.call("lock", "--env", "shop", "--update").stdout

    gone = other.call("lock", "--env", "shop", "--update", "--set", f"images.agent={reference}0", check=False)
    assert (gone.returncode, f"{reference}0 does not exist" in gone.stderr) == (4, True), gone.stderr


def test_apt_takes_the_locked_of_two_versions(debian_image: str) -> None:
    """A real apt before an archive that has both."""
    make = (PACKAGE.format(image="", version=version).partition("RUN ")[2] for version in ("1.0", "1.1"))
    script = "\n".join(text.replace(" && dpkg --install", " && true") for text in make)
    script += """
    for version in 1.0 1.1; do
        printf 'Package: shop\\nArchitecture: all\\nVersion: %s\\nFilename: ./shop_%s.deb\\n' $version $version
        printf 'Size: %s\\nSHA256: %s\\n\\n' \
            $(stat -c %s /shop_$version.deb) $(sha256sum < /shop_$version.deb | cut -d' ' -f1)
    done > /Packages
    echo 'deb [trusted=yes] file:/ ./' > /etc/apt/sources.list
    apt-get update -qq
    apt-get install -qq -y shop >/dev/null
    dpkg-query -W -f '${Version}\\n' shop
    """
    argv = ["docker", "run", "--rm", "--network", "none", debian_image, "sh", "-euc"]
    assert run([*argv, script]).stdout.split()[-1] == "1.1"
    pin = f"cat > /etc/apt/preferences.d/lock.pref <<'EOF'\n{apt_preferences({'shop': '1.0'})}\nEOF\n"
    assert run([*argv, pin + script]).stdout.split()[-1] == "1.0"
