"""Builds without internet: from a mirror alone, in a network that has nothing else."""

import contextlib
import functools
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edgebuild.imagecheck import PROGRAMS, RELEASE_KEYS
from edgebuild.imagetree import INDEX
from edgebuild.lock import STAGES, Lock, lock_path, lock_text, lockable_images
from edgebuild.oci import Registry, describe
from edgebuild.run import Result, run
from edgebuild.session import asked_now, open_session
from tests.conftest import Workspace, copy_repository
from tests.integration.island import MAINLAND, Island, island, mainland
from tests.registry_server import registry_server

BASE = "quay.io/tests/base:1"
PIPELINE = """\
{% import family ~ ".j2" as system with context %}
{% import "lock.j2" as lock with context %}
{% import "mirror.j2" as mirror with context %}
{{ mirror.stage() }}
FROM {{ upstream.agent }} AS agent
FROM {{ upstream.base }} AS customized
RUN {{ lock.pins("base-image") }}{{ system.install(os.packages) }}
COPY --from=agent /etc/hostname /etc/agent
{{ customizations }}
FROM customized AS base-image
{% include "base-image.j2" %}
# Add any other image customizations here
"""
ENVIRONMENT = f"""\
schema: 1
os: {{distribution: debian, version: "12", base_image: "{BASE}", packages: [mirrored]}}
kubernetes: {{distribution: k3s, versions: ["1.33.6"], payload: none}}
images: {{agent: "{BASE}", kairos_provider: "{BASE}", third_party: "", tools: "{BASE}"}}
"""


@dataclass(frozen=True)
class Offline:
    """A workspace whose images are in a private registry, an island that reaches it, and the folder they came in."""

    workspace: Workspace
    island: Island
    settings: tuple[str, ...]
    printed: str  # by the import
    digest: str  # of the base, which the lock pins: an index
    registry: str

    @contextlib.contextmanager
    def own_lines(self, lines: str) -> Iterator[None]:
        """A fork's own lines in the Dockerfile, locked as all else."""
        pipeline = self.workspace.root / "Dockerfile.j2"
        try:
            pipeline.write_text(PIPELINE + lines)
            lock(self.workspace, self.digest)
            yield
        finally:
            pipeline.write_text(PIPELINE)
            lock(self.workspace, self.digest)

    def build(self, *arguments: str, check: bool = True) -> Result:
        return self.island.call(
            self.workspace, "base-image", "--env", "air", "--offline", *self.settings, *arguments, check=check
        )


def archive(folder: Path) -> None:
    """A Debian archive of one package, below debian/."""
    package = folder / "package"
    (package / "DEBIAN").mkdir(parents=True)
    (package / "usr/share").mkdir(parents=True)
    (package / "usr/share/mirrored").write_text("from the package mirror\n")
    control = "Package: mirrored\nVersion: 1\nArchitecture: all\nMaintainer: tests <t@localhost>\nDescription: test\n"
    (package / "DEBIAN/control").write_text(control)
    lists = folder / "debian/dists/bookworm/main/binary-amd64"
    lists.mkdir(parents=True)
    run(["dpkg-deb", "--build", "--root-owner-group", package, folder / "debian/mirrored.deb"])
    size = (folder / "debian/mirrored.deb").stat().st_size
    digest = run(["sha256sum", folder / "debian/mirrored.deb"]).stdout[:64]
    (lists / "Packages").write_text(f"{control}Filename: mirrored.deb\nSize: {size}\nSHA256: {digest}\n")
    listed = run(["sha256sum", lists / "Packages"]).stdout[:64]
    (folder / "debian/dists/bookworm/Release").write_text(
        "Suite: bookworm\nCodename: bookworm\nArchitectures: amd64\nComponents: main\n"
        f"SHA256:\n {listed} {(lists / 'Packages').stat().st_size} main/binary-amd64/Packages\n"
    )


def publish(registry: str, image: str) -> str:
    """The base in the first registry, as an index of two platforms; returns its digest."""
    name = f"{registry}/{BASE}"
    text = f"FROM {image}\nRUN rm -rf /etc/apt/sources.list.d /var/lib/apt/lists/* && \\\n"
    text += "  echo 'deb [trusted=yes] http://archive.invalid/debian bookworm main' > /etc/apt/sources.list\n"
    # All that the gate asks of an image, and no more.
    text += "RUN mkdir -p /lib/modules/1 /etc/cos && touch /boot/vmlinuz /boot/initrd /etc/cos/bootargs.cfg && \\\n"
    text += f"  for name in {' '.join(RELEASE_KEYS)}; do echo $name=x >> /etc/kairos-release; done && \\\n"
    text += f"  for name in {' '.join(PROGRAMS)}; do install -m 755 /dev/null /usr/bin/$name; done && \\\n"
    text += "  printf '#!/bin/sh\\necho immucore; echo kairos-agent\\n' > /usr/bin/lsinitrd && \\\n"
    text += "  chmod 755 /usr/bin/lsinitrd\n"
    run(["docker", "buildx", "build", "--provenance=false", "--tag", name, "--load", "-"], stdin=text)
    run(["docker", "push", "--quiet", name])
    run(["docker", "image", "rm", name])
    client, repository = Registry(registry), "quay.io/tests/base"
    _, kind, data = client.manifest(repository, "1")
    other = json.loads(data)
    config = json.dumps({"os": "linux", "architecture": "arm64"}).encode()
    client.put_blob(repository, config)
    other |= {"config": describe(other["config"]["mediaType"], config), "layers": []}
    second = json.dumps(other).encode()
    client.put_manifest(repository, "arm64", second, kind)
    children = [
        {**describe(kind, content), "platform": {"os": "linux", "architecture": architecture}}
        for content, architecture in ((data, "amd64"), (second, "arm64"))
    ]
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": children}).encode()
    return client.put_manifest(repository, "1", index, INDEX)


def lock(workspace: Workspace, digest: str) -> None:
    session = open_session(workspace.root, "air", [])
    found = Lock(
        made_for=asked_now(session),
        images=dict.fromkeys(lockable_images(session.environment).values(), digest),
        base="",
        packages={stage: {} for stage in STAGES},
    )
    workspace.write(lock_path("air"), lock_text(found, "air"))


@pytest.fixture(scope="module")
def offline(debian_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Offline]:
    """First registry -> folder -> private registry, then an island that has only that one and a package archive."""
    folder = tmp_path_factory.mktemp("offline")
    workspace = copy_repository(folder / "workspace")
    workspace.write("Dockerfile.j2", PIPELINE)
    workspace.write("config/air.yaml", ENVIRONMENT)
    archive(folder)
    with registry_server(folder / "first") as first:
        digest = publish(first, debian_image)
        lock(workspace, digest)
        at = f'registries.mirrors={{"quay.io": "{first}/quay.io"}}'
        workspace.call("mirror.export", "--env", "air", "--set", at, "--to", str(folder / "mirror"), "--no-wheels")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    with (
        mainland() as address,
        registry_server(folder / "private", host=address) as private,
        ThreadingHTTPServer((address, 0), handler) as packages,
        island(private) as there,
    ):
        threading.Thread(target=packages.serve_forever, daemon=True).start()
        to = f"{private}/mirror"
        printed = there.call(workspace, "mirror.import", "--from", str(folder / "mirror"), "--to", to).stdout
        mirrors = f'registries.mirrors={{"quay.io": "{to}/quay.io"}}'
        archives = f'package_mirrors={{"debian": "http://{address}:{packages.server_port}/debian"}}'
        yield Offline(workspace, there, ("--set", mirrors, "--set", archives), printed, digest, to)
        packages.shutdown()


def test_a_build_from_the_mirror_alone(offline: Offline) -> None:
    assert "quay.io: 10.231.7.1:" in offline.printed
    result = offline.build()
    image = offline.workspace.result("air", "artifacts.json").read_text()
    digest = json.loads(image)[0]["digest"]
    show = "cat /usr/share/mirrored /etc/agent /etc/apt/sources.list; ls /dev/shm /tmp; echo APT=$APT_CONFIG"
    shown = run(["docker", "run", "--rm", "--network=none", digest, "sh", "-c", show], env=offline.island.env).stdout
    assert "from the package mirror" in shown
    # The mirror was for the step only.
    assert "archive.invalid" in shown
    assert "10.231" not in shown
    assert shown.endswith("APT=\n")
    assert "done in" in result.stderr


def test_what_would_ask_elsewhere_is_refused_before(offline: Offline) -> None:
    logs = sorted((offline.workspace.root / "build/air/logs").glob("*"))
    lines = "COPY --from=docker.io/library/busybox:1 /bin/busybox /\nADD https://example.com/x /x\n"
    with offline.own_lines(lines):
        result = offline.build("--set", "package_mirrors={}", check=False)
    assert result.returncode == 2
    for said in (
        "docker.io/library/busybox:1: registries.mirrors has no mirror for it",
        "docker.io/library/busybox:1: no digest pins it",
        "ADD https://example.com/x",
        "package_mirrors.debian: is not set",
        "./inv lock --env air",
    ):
        assert said in result.stderr
    assert sorted((offline.workspace.root / "build/air/logs").glob("*")) == logs  # nothing was begun


def test_an_image_that_the_mirror_lacks_is_named(offline: Offline) -> None:
    result = offline.build("--set", "lock=false", check=False)
    assert result.returncode == 2
    assert "no digest pins it" in result.stderr
    pinned = [f"{key}={BASE}@sha256:{'1' * 64}" for key in ("os.base_image", "images.agent", "images.tools")]
    pinned += ["lock=false", f"images.kairos_provider={BASE}@sha256:{'1' * 64}"]
    result = offline.build(*(part for each in pinned for part in ("--set", each)), check=False)
    assert result.returncode == 2
    assert f"{BASE}@sha256:111111111111: is not in the mirror" in result.stderr
    assert "./inv mirror.export --env air" in result.stderr


def test_the_lock_is_enough_to_check_the_registry(offline: Offline) -> None:
    """Its index is in the registry as a blob only; the base's image is found through it."""
    checked = offline.island.call(offline.workspace, "mirror.check", "--env", "air", "--registry", offline.registry)
    assert checked.stdout.startswith("1 image: every byte")


def test_a_mirror_that_is_away(offline: Offline) -> None:
    away = f'registries.mirrors={{"quay.io": "{MAINLAND}:1/quay.io"}}'
    result = offline.build("--set", away, check=False)
    assert result.returncode == 4
    assert f"{MAINLAND}:1/quay.io/tests/base" in result.stderr


def test_own_steps_have_no_network(offline: Offline) -> None:
    with offline.own_lines('RUN test "$(ls /sys/class/net)" = lo\n'):
        offline.build()
