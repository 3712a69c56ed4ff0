"""A demo that is built, signed, pushed and checked: by `inv verify --key`, and by the documented commands."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgebuild.oci import Registry
from edgebuild.references import split_reference
from edgebuild.run import CommandFailed, run
from tests.conftest import ROOT, Workspace, copy_repository
from tests.integration.test_supply_chain import ISO, commands, shell
from tests.keys import Keys, install, install_cosign, openssl_keys


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    install_cosign()
    install("jq")
    return openssl_keys(tmp_path_factory.mktemp("keys"), "signing")


@pytest.fixture(scope="module")
def settings(registry: str, keys: Keys) -> list[str]:
    changes = (f"signing.key=file:{keys.private}", f"image.registry={registry}/signed", "kubernetes.versions=1.24.6")
    return ["--env", "demo", *(part for change in changes for part in ("--set", change))]


@pytest.fixture(scope="module")
def own(bootstrapped: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A copy of the repository of these tests' own: what the others build stays as it is."""
    return copy_repository(tmp_path_factory.mktemp("signed"))


@pytest.fixture(scope="module")
def signed(own: Workspace, settings: list[str]) -> Iterator[Path]:
    """The result folder of a signed and pushed build."""
    own.call("build-all-images", *settings)
    own.call("push", *settings)
    yield own.result("demo", "")
    (image,) = provider_images(own.result("demo", ""))
    run(["docker", "image", "rm", image["reference"]])


def provider_images(folder: Path) -> list[dict[str, str]]:
    artifacts = json.loads((folder / "artifacts.json").read_text())
    return [each for each in artifacts if each["kind"] == "provider-image"]


def test_signed_pushed_and_checked(own: Workspace, signed: Path, settings: list[str], keys: Keys) -> None:
    result = own.call("verify", *settings, "--key", str(keys.public))
    assert "signatures" in result.stdout + result.stderr
    other = openssl_keys(keys.public.parent, "other")
    refused = own.call("verify", *settings, "--key", str(other.public), check=False)
    assert refused.returncode == 5
    for part in ("SHA256SUMS", "provenance/iso.json", "no provenance by the owner", "no signature by the owner"):
        assert part in refused.stderr, refused.stderr


def test_every_artifact_has_its_documents(signed: Path) -> None:
    artifacts = json.loads((signed / "artifacts.json").read_text())
    for artifact in artifacts:
        assert (signed / f"provenance/{artifact['name']}.json").exists()
    for name in ("provider-image-1-24-6", "iso-image", "iso"):
        bill = json.loads((signed / f"sbom/{name}.cdx.json").read_text())
        packages = {component["name"] for component in bill["components"]}
        assert {"bash", "dpkg", "systemd"} <= packages
        digest = next(artifact["digest"] for artifact in artifacts if artifact["name"] == name)
        assert bill["metadata"]["component"]["hashes"][0]["content"] == digest.removeprefix("sha256:")


def test_the_documented_commands(signed: Path, keys: Keys, tmp_path: Path) -> None:
    for path in (signed / ".current").rglob("*"):
        target = tmp_path / path.relative_to(signed / ".current")
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
    (tmp_path / "signing.pub").write_bytes(keys.public.read_bytes())
    by_openssl, by_cosign, comes_from = commands(ROOT, "Checking the files")
    for script in (by_openssl, by_cosign):
        shell(script, tmp_path)
    made_of = json.loads(shell(comes_from, tmp_path))
    assert {"base.tar", "inputs/Dockerfile", "user-data.j2"} <= {each["name"] for each in made_of}
    (tmp_path / ISO).unlink()
    (tmp_path / ISO).write_bytes(b"another")
    for script in (by_openssl, comes_from):
        with pytest.raises(CommandFailed):
            shell(script, tmp_path)
    (script,) = commands(ROOT, "Checking images")
    (image,) = provider_images(signed)
    host, repository, tag = split_reference(image["reference"])
    digest = Registry(host).manifest(repository, tag)[0]
    assert digest == image["registry_digest"]
    pinned = f"{host}/{repository}@{digest}"
    assert pinned.split("@")[1] in shell(re.sub(r"IMAGE=\S+", f"IMAGE={pinned}", script, count=1), tmp_path)


def test_the_key_is_nowhere(signed: Path, keys: Keys) -> None:
    body = keys.private.read_text().splitlines()[1]
    run(["sh", "-c", f"! grep -R --include=*.json --include=*.yaml --include=*.log -e '{body}' ."], cwd=signed)


def test_pushing_again_attaches_nothing_twice(own: Workspace, signed: Path, settings: list[str]) -> None:
    (image,) = provider_images(signed)
    host, repository, _ = split_reference(image["reference"])
    listed = Registry(host).manifest(repository, image["registry_digest"].replace(":", "-"))
    own.call("push", *settings)
    assert Registry(host).manifest(repository, image["registry_digest"].replace(":", "-")) == listed
