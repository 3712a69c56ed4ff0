"""`inv push --verified`: tags move only to what passed verify and boot, and only by the digest that was pushed."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgebuild.oci import Registry
from edgebuild.results import Results
from edgebuild.run import Result, run
from tests.conftest import Workspace
from tests.integration.images import note_boots
from tests.registry_server import Fault, faulty_proxy

TAG = "k3s-1.24.6-v4.9.38-demo"


@pytest.fixture
def settings(demo: Result, registry: str) -> list[str]:
    return ["--env", "demo", "--set", f"image.registry={registry}/gate", "--set", "kubernetes.versions=1.24.6"]


@pytest.fixture
def built(workspace: Workspace, settings: list[str]) -> Iterator[Workspace]:
    """A set of one provider image and the ISO. That it has booted is noted: tests/boot really boots this ISO."""
    workspace.call("build-all-images", *settings)
    note_boots(Results(workspace.root / "build/demo"))
    yield workspace
    workspace.call("build-all-images", "--env", "demo")


def digest(registry: str) -> str:
    remote = Registry(registry)
    return remote.manifest("gate/edgebuild", TAG)[0] if remote.exists("gate/edgebuild", TAG) else ""


def test_the_gate(built: Workspace, settings: list[str], registry: str) -> None:
    """Refused while anything differs; then moved by digest; then nothing is done twice."""
    iso = built.result("demo", "palette-edge-installer.iso").resolve()
    with iso.open("r+b") as file:
        file.seek(60_000_000)
        byte = file.read(1)
        file.seek(60_000_000)
        file.write(bytes([byte[0] ^ 1]))
    refused = built.call("push", *settings, "--verified", check=False)
    assert refused.returncode == 5, refused.stderr
    assert "/rootfs.squashfs: its bytes are not those that were built" in refused.stderr
    assert digest(registry) == ""
    with iso.open("r+b") as file:
        file.seek(60_000_000)
        file.write(byte)
    pushed = built.call("push", *settings, "--set", "push.require=verified")
    assert "every candidate has its digest in the registry; moving the tags" in pushed.stderr
    assert pushed.stdout.count("booted already") == 2
    entries = {each["name"]: each for each in json.loads(built.result("demo", "artifacts.json").read_text())}
    image = entries["provider-image-1-24-6"]
    assert digest(registry) == image["registry_digest"]
    assert f"{registry}/gate/edgebuild:{TAG}@{digest(registry)}" in pushed.stdout
    again = built.call("push", *settings, "--verified")
    assert "checksum" not in again.stdout  # nothing was read once more
    assert f"{TAG}-candidate  is there already" in again.stderr
    shown = built.call("verify", *settings)
    assert "ok       registry" in shown.stdout
    left = run(["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]).stdout
    assert "-candidate" not in [line for line in left.splitlines() if f"{registry}/gate" in line]


def test_a_registry_with_another_digest(built: Workspace, settings: list[str], registry: str) -> None:
    with faulty_proxy(registry) as proxy:
        other = [each.replace(registry, proxy.address).replace("/gate", "/other") for each in settings]
        built.call("build-all-images", *other)
        note_boots(Results(built.root / "build/demo"))
        wrong = "sha256:" + "0" * 64
        proxy.faults.append(Fault("HEAD", f"/manifests/{TAG}-candidate", 200, times=1000, digest=wrong))
        refused = built.call("push", *other, "--verified", check=False)
    assert refused.returncode == 4, refused.stderr
    assert not Registry(registry).exists("other/edgebuild", TAG)


def test_a_byte_changed_in_the_registry(built: Workspace, settings: list[str], registry: str) -> None:
    """Found by `inv verify`, which names the layer."""
    built.call("push", *settings)
    layers = json.loads(Registry(registry).manifest("gate/edgebuild", TAG)[2])["layers"]
    storage = _storage(registry)
    smallest = min(layers, key=lambda layer: int(layer["size"]))
    name = smallest["digest"].removeprefix("sha256:")
    blob = storage / f"docker/registry/v2/blobs/sha256/{name[:2]}/{name}/data"
    content = blob.read_bytes()
    blob.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    try:
        found = built.call("verify", *settings, check=False)
    finally:
        blob.write_bytes(content)
    assert found.returncode == 5
    assert f"({smallest['digest']}, " in found.stderr
    built.call("verify", *settings)


def _storage(registry: str) -> Path:
    """Where the registry of these tests keeps its blobs, from its own configuration."""
    port = registry.rpartition(":")[2]
    listing = run(["pgrep", "--full", "--list-full", "docker-registry serve"]).stdout
    for line in listing.splitlines():
        config = Path(line.split()[-1])
        if config.exists() and f":{port}" in config.read_text():
            return config.parent / "data"
    raise AssertionError(listing)
