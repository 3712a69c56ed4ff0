"""A mirror of real registries' images: listed, exported, imported, checked; and what damages it."""

import errno
import json
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgebuild.errors import EdgebuildError
from edgebuild.imagetree import INDEX, MANIFEST, Descriptor
from edgebuild.layout import Layout
from edgebuild.mirroring import disk_errors
from edgebuild.oci import Registry, describe, digest_of
from edgebuild.run import Result, run
from tests.conftest import Workspace, copy_repository
from tests.faults.machine import empty, fill, small_disk
from tests.registry_server import Fault, faulty_proxy, free_port, registry_server

DEBIAN = "docker.io/library/debian:12-slim"
PALETTE = "us-docker.pkg.dev/palette-images"
SHARED = random.Random(1).randbytes(400_000)  # noqa: S311 - content, no secret
HOSTS = ("docker.io", "us-docker.pkg.dev")


@dataclass(frozen=True)
class Upstream:
    """A registry with every image of an environment, and the environment that pulls them from there."""

    address: str
    workspace: Workspace
    index: str  # digest of the tools image: an index of two platforms
    bytes: int  # of all its images, what they share counted for each

    def call(self, task: str, *arguments: str, check: bool = True, through: str = "") -> Result:
        mirrors = {host: f"{through or self.address}/{host}" for host in HOSTS}
        setting = f"registries.mirrors={json.dumps(mirrors)}"
        return self.workspace.call(f"mirror.{task}", "--env", "small", "--set", setting, *arguments, check=check)


def image(registry: Registry, repository: str, architecture: str, *layers: bytes) -> dict[str, Any]:
    """Put an image of these layers; returns its descriptor with its platform."""
    config = json.dumps({"os": "linux", "architecture": architecture, "of": repository}).encode()
    for blob in (config, *layers):
        registry.put_blob(repository, blob)
    content = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": describe("application/vnd.oci.image.config.v1+json", config),
        "layers": [describe("application/vnd.oci.image.layer.v1.tar", layer) for layer in layers],
    }
    data = json.dumps(content).encode()
    registry.put_manifest(repository, digest_of(data), data, MANIFEST)
    return {**describe(MANIFEST, data), "platform": {"os": "linux", "architecture": architecture}}


def tag(registry: Registry, repository: str, name: str, *layers: bytes) -> None:
    registry.retag(repository, image(registry, repository, "amd64", *layers)["digest"], name)


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    workspace = copy_repository(tmp_path_factory.mktemp("mirrored"))
    workspace.write("config/small.yaml", "schema: 1\nkubernetes: {distribution: k3s, versions: [1.33.6]}\n")
    with registry_server(tmp_path_factory.mktemp("first")) as address:
        registry = Registry(address)
        names = workspace.call("mirror.plan", "--env", "small", "--json", "--set", _nowhere()).stdout
        for number, row in enumerate(json.loads(names)["images"]):
            if row["source"] != DEBIAN:
                layer = bytes([number]) * 50_000
                repository, _, name = row["source"].rpartition(":")
                tag(registry, repository, name, SHARED, layer)
        tools = DEBIAN.rpartition(":")[0]
        other = random.Random(2).randbytes(90_000)  # noqa: S311
        children = [image(registry, tools, "amd64", SHARED, b"t"), image(registry, tools, "arm64", other)]
        index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": children}).encode()
        digest = registry.put_manifest(tools, "12-slim", index, INDEX)
        for name in ("repository.yaml", "tree.tar.zst", "k3s-k8s-1.33.6-k3s1", "k3s-k8s-1.32.1-k3s1"):
            tag(registry, f"{PALETTE}/edge/luet-repo-amd", name, name.encode())
        listed = Upstream(address, workspace, digest, 0).call("plan", "--json").stdout
        yield Upstream(address, workspace, digest, sum(row["bytes"] for row in json.loads(listed)["images"]))


def _nowhere() -> str:
    """Mirrors that do not answer: only the names are of interest."""
    return f"registries.mirrors={json.dumps(dict.fromkeys(HOSTS, f'127.0.0.1:{free_port()}'))}"


@pytest.fixture(scope="module")
def exported(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "mirror"
    upstream.call("export", "--to", str(folder), "--no-wheels")
    return folder


@pytest.fixture
def damaged(exported: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    shutil.copytree(exported, tmp_path / "mirror")
    return tmp_path / "mirror"


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry_server(tmp_path_factory.mktemp("private")) as address:
        yield address


def blob_of(folder: Path, source: str) -> Path:
    """The newest layer of an image in the folder."""
    index = json.loads((folder / "index.json").read_text())
    [entry] = [each for each in index["manifests"] if source in each["annotations"].values()]
    content = json.loads((folder / "blobs/sha256" / entry["digest"][7:]).read_text())
    if "manifests" in content:
        digest = content["manifests"][0]["digest"]
        content = json.loads((folder / "blobs/sha256" / digest[7:]).read_text())
    return folder / "blobs/sha256" / str(content["layers"][-1]["digest"])[7:]


def test_the_plan_names_everything(upstream: Upstream) -> None:
    shown = upstream.call("plan").stdout
    for source in (DEBIAN, f"{PALETTE}/edge/luet-repo-amd:k3s-k8s-1.33.6-k3s1", "stylus-framework-linux-amd64"):
        assert source in shown
    assert "1.32.1" not in shown
    assert "packages of ubuntu: from where the images say" in shown
    assert "wheels of requirements.lock" in shown
    assert "named by tag only; ./inv lock pins by digest" in shown
    rows = json.loads(upstream.call("plan", "--json").stdout)["images"]
    [tools] = [row for row in rows if row["source"] == DEBIAN]
    assert tools["digest"] == upstream.index
    assert tools["platforms"] == ["linux/amd64"]
    assert 400_000 < tools["bytes"] < 420_000  # arm64 is not counted


def test_export_is_an_image_layout_with_checksums(upstream: Upstream, exported: Path) -> None:
    assert json.loads((exported / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((exported / "index.json").read_text())
    [tools] = [each for each in index["manifests"] if each["digest"] == upstream.index]
    assert tools["annotations"]["org.opencontainers.image.ref.name"] == DEBIAN
    assert upstream.workspace.call("mirror.check", "--from", str(exported)).stdout.startswith("8 images: every byte")
    blobs = sum(path.stat().st_size for path in (exported / "blobs/sha256").iterdir())
    assert blobs < upstream.bytes / 2  # what images share is there once
    assert not list(exported.rglob("*.partial"))


def test_what_is_there_is_not_fetched_again(upstream: Upstream, damaged: Path) -> None:
    changed = blob_of(damaged, DEBIAN)
    changed.write_bytes(b"T")
    with faulty_proxy(upstream.address) as proxy:
        upstream.call("export", "--to", str(damaged), "--no-wheels", through=proxy.address)
        fetched = [line for line in proxy.asked if line.startswith("GET") and "/blobs/" in line]
    assert fetched == [f"GET /v2/docker.io/library/debian/blobs/sha256:{changed.name}"]
    upstream.call("check", "--from", str(damaged))


def test_an_export_goes_on_in_the_middle_of_a_blob(upstream: Upstream, damaged: Path) -> None:
    """What a killed run leaves of a blob is not fetched again."""
    shared = damaged / "blobs/sha256" / digest_of(SHARED)[7:]
    shared.with_name(f".{shared.name}.partial").write_bytes(SHARED[:300_000])
    shared.unlink()
    with faulty_proxy(upstream.address) as proxy:
        proxy.faults.append(Fault("GET", f"/blobs/{digest_of(SHARED)}", 503, 1))
        result = upstream.call("export", "--to", str(damaged), "--no-wheels", through=proxy.address)
    assert "100.0 kB fetched now" in result.stdout
    assert shared.read_bytes() == SHARED


def test_what_a_killed_run_left_may_be_damaged(upstream: Upstream, damaged: Path) -> None:
    shared = damaged / "blobs/sha256" / digest_of(SHARED)[7:]
    shared.with_name(f".{shared.name}.partial").write_bytes(b"other" * 1000)
    shared.unlink()
    upstream.call("export", "--to", str(damaged), "--no-wheels")
    assert shared.read_bytes() == SHARED


def test_a_registry_that_serves_other_bytes(upstream: Upstream, tmp_path: Path) -> None:
    with faulty_proxy(upstream.address) as proxy:
        proxy.faults.append(Fault("GET", f"/blobs/{digest_of(SHARED)}", 200, 9, body="other"))
        arguments = ("--to", str(tmp_path / "mirror"), "--no-wheels")
        result = upstream.call("export", *arguments, through=proxy.address, check=False)
    assert result.returncode == 4
    assert "serves other bytes" in result.stderr
    assert not (tmp_path / "mirror/blobs/sha256" / digest_of(SHARED)[7:]).exists()


def test_import_check_and_lines_for_the_environment(upstream: Upstream, exported: Path, private: str) -> None:
    to = f"{private}/mirror"
    result = upstream.workspace.call("mirror.import", "--from", str(exported), "--to", to)
    assert f"    docker.io: {to}/docker.io\n    us-docker.pkg.dev: {to}/us-docker.pkg.dev\n" in result.stdout
    # docker-registry 2.8 refuses the index: the platform's own image has the tag, and the index is provable.
    assert "the image for its platform out of the index" in result.stderr
    with faulty_proxy(private) as proxy:
        again = f"{proxy.address}/mirror"
        result = upstream.workspace.call("mirror.import", "--from", str(exported), "--to", again)
        assert not [line for line in proxy.asked if line.startswith(("PATCH", "POST"))]
    assert "0 B sent" in result.stdout
    checked = upstream.workspace.call("mirror.check", "--from", str(exported), "--registry", to)
    assert checked.stdout.startswith("8 images: every byte")


def test_blobs_are_sent_once_and_mounted(upstream: Upstream, exported: Path, tmp_path: Path) -> None:
    with registry_server(tmp_path) as address, faulty_proxy(address) as proxy:
        upstream.workspace.call("mirror.import", "--from", str(exported), "--to", proxy.address)
        mounted = [line for line in proxy.asked if f"mount=sha256%3A{digest_of(SHARED)[7:]}" in line]
        uploads = [line for line in proxy.asked if line.startswith("PATCH")]
    assert len(mounted) == 4  # of five images
    unique = {path.name for path in (exported / "blobs/sha256").iterdir()}
    assert len(uploads) < len(unique)


def test_from_registry_to_registry(upstream: Upstream, exported: Path, tmp_path: Path) -> None:
    with registry_server(tmp_path) as address:
        upstream.call("import", "--to", address)
        upstream.call("check", "--from", str(exported), "--registry", address)


def test_a_registry_that_takes_the_index_keeps_its_digest(upstream: Upstream, exported: Path) -> None:
    """The first registry has all platforms."""
    result = upstream.workspace.call("mirror.import", "--from", str(exported), "--to", upstream.address)
    assert "out of the index" not in result.stderr
    assert Registry(upstream.address).manifest("docker.io/library/debian", "12-slim")[0] == upstream.index


@pytest.mark.parametrize("damage", ["changed", "missing", "cut"])
def test_a_damaged_blob_is_named_and_its_image_not_pushed(upstream: Upstream, damaged: Path, damage: str) -> None:
    blob = blob_of(damaged, DEBIAN)
    if damage == "missing":
        blob.unlink()
    else:
        blob.write_bytes(b"T" if damage == "changed" else b"")
    checked = upstream.workspace.call("mirror.check", "--from", str(damaged), check=False)
    assert checked.returncode == 5
    assert f"{DEBIAN}: blob sha256:{blob.name}" in checked.stderr
    with registry_server(damaged.parent / "registry") as address:
        pushed = upstream.workspace.call("mirror.import", "--from", str(damaged), "--to", address, check=False)
        assert pushed.returncode == 5
        assert f"{DEBIAN}: not pushed: blob sha256:{blob.name}" in pushed.stderr
        assert not Registry(address).exists("docker.io/library/debian", "12-slim")
        assert Registry(address).exists(f"{PALETTE}/edge/luet-repo-amd", "repository.yaml")  # the others are


def test_folders_that_are_no_mirror(upstream: Upstream, damaged: Path, tmp_path: Path) -> None:
    index = damaged / "index.json"
    index.write_bytes(index.read_bytes()[:100])
    for task, more in (("check", ()), ("import", ("--to", "127.0.0.1:1"))):
        cut = upstream.workspace.call(f"mirror.{task}", "--from", str(damaged), *more, check=False)
        assert cut.returncode == 5
        assert "index.json: is damaged or cut off" in cut.stderr
        none = upstream.workspace.call(f"mirror.{task}", "--from", str(tmp_path), *more, check=False)
        assert none.returncode == 2
        assert "is no mirror" in none.stderr
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").touch()
    into = upstream.call("export", "--to", str(tmp_path / "mine"), "--no-wheels", check=False)
    assert into.returncode == 2
    assert "neither empty nor a mirror" in into.stderr
    many = upstream.call("import", "--to", "127.0.0.1:1", "--jobs", "65", check=False)
    assert many.returncode == 2
    # The same export again mends it.
    upstream.call("export", "--to", str(damaged), "--no-wheels")
    upstream.workspace.call("mirror.check", "--from", str(damaged))


def test_a_blob_that_the_registry_has_lost(upstream: Upstream, exported: Path, tmp_path: Path) -> None:
    with registry_server(tmp_path) as address:
        upstream.workspace.call("mirror.import", "--from", str(exported), "--to", address)
        name = digest_of(SHARED)[7:]
        (tmp_path / f"data/docker/registry/v2/blobs/sha256/{name[:2]}/{name}/data").write_bytes(SHARED[:-1] + b"x")
        checked = upstream.workspace.call("mirror.check", "--from", str(exported), "--registry", address, check=False)
    assert checked.returncode == 5
    assert f"blob {digest_of(SHARED)}: the registry serves other bytes" in checked.stderr


def test_nobody_there(upstream: Upstream, exported: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    refused = upstream.workspace.call("mirror.import", "--from", str(exported), "--to", address, check=False)
    assert refused.returncode == 4
    assert "refused" in refused.stderr


def test_a_full_disk_in_the_middle(upstream: Upstream, tmp_path: Path) -> None:
    """A small one is told before; one that fills up is a clear error, and with room again the rest comes."""
    with small_disk(tmp_path / "disk", "4M") as disk:
        folder, part = disk / "mirror", Descriptor(digest_of(SHARED), len(SHARED))
        fill(disk, leave=300_000)
        small = upstream.call("export", "--to", str(folder), "--no-wheels", check=False)
        assert small.returncode == 1
        assert "are still to be fetched" in small.stderr
        empty(disk)

        def filled(offset: int) -> Iterator[bytes]:
            yield SHARED[offset : offset + 100_000]
            fill(disk)
            yield SHARED[offset + 100_000 :]

        with pytest.raises(EdgebuildError, match=f"{folder}: {os.strerror(errno.ENOSPC)}"), disk_errors(folder):
            Layout(folder).fetch(part, filled)
        empty(disk)
        upstream.call("export", "--to", str(folder), "--no-wheels")
        upstream.call("check", "--from", str(folder))


TASKS = """import sys
from invoke.tasks import task
@task
def show(c):
    print(sys.prefix)
"""


def test_wheels_start_inv_without_network(tmp_path: Path) -> None:
    """With the smallest lock that runs it; pip is told by its own variables."""
    workspace = copy_repository(tmp_path / "repository")
    lock = (workspace.root / "requirements.lock").read_text()
    start = lock.index("\ninvoke==") + 1
    end = lock.index("\n", lock.rindex("--hash", start, lock.index("==", start + 10)))
    workspace.write("requirements.lock", lock[start : end + 1])
    folder = tmp_path / "mirror"
    workspace.call("mirror.export", "--env", "demo", "--to", str(folder))  # pulls no image
    [wheel] = (folder / "wheels").iterdir()
    workspace.write("tasks.py", TASKS)
    inv = ["unshare", "--net", str(workspace.root / "inv"), "show"]
    nothing = run(inv, check=False, env={"PIP_NO_INDEX": "1", "PIP_RETRIES": "0"})
    assert nothing.returncode == 3
    told = run(inv, env={"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder / "wheels")})
    assert told.stdout.strip() == str(workspace.root / ".venv")
    wheel.write_bytes(b"another")
    shutil.copy2(Path(__file__).parents[2] / "tasks.py", workspace.root / "tasks.py")
    checked = workspace.call("mirror.check", "--from", str(folder), check=False)
    assert checked.returncode == 5
    assert f"wheels/{wheel.name}" in checked.stderr
