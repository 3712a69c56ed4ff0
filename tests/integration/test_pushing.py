"""Push from the engine's storage to a real registry: each layer once, and what a cut leaves goes on."""

import base64
import contextlib
import gzip
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest

from edgebuild import pushing
from edgebuild.errors import InputError, RegistryError
from edgebuild.oci import Registry
from edgebuild.registry import Pushed
from edgebuild.run import process, run
from edgebuild.sending import Settings
from tests.conftest import ROOT
from tests.registry_server import STALL, USERS, Fault, Proxy, faulty_proxy, free_port, registry_server

NAME = "edgebuild-tests/send"
VERSIONS = 4
# As little of Debian as reads layers; names and files that are not plain; a lower layer's file deleted and changed.
DOCKERFILE = r"""
FROM edgebuild-tests/debian:12 AS debian
RUN mkdir -p /new/bin /new/odd && cp /bin/sh /bin/cat /usr/bin/wc /usr/bin/xargs /new/bin \
 && for each in sh cat; do ldd /bin/$each; done | sed -n 's/.*[ \t]\(\/[^ ]*\) (.*/\1/p' | sort -u \
 | while read -r each; do mkdir -p "/new/$(dirname "$each")"; cp -L "$each" "/new/$each"; done \
 && cd /new/odd && printf name > "$(printf 'n\303\244\377me')" && printf hard > a && ln a b && ln -s /none link \
 && : > empty && mkfifo fifo && printf 1 > "$(printf 'new\nline')" && mkdir -m 1777 many && chown 12:34 a \
 && head -c 3000000 /dev/urandom > random && head -c 3000000 /dev/zero > zero && printf x > gone
FROM scratch AS base
COPY --from=debian /new /
RUN ["/bin/sh", "-c", "printf changed > /odd/a"]
"""


# A push in a process of its own.
PUSH = """
import sys
from pathlib import Path
from edgebuild import pushing
from edgebuild.engine import docker_client
from edgebuild.sending import Settings
settings = Settings(Path(sys.argv[1]), jobs=1)
pushing.push(docker_client(), sys.argv[2:], settings, say=lambda text: print(text, flush=True))
"""


@pytest.fixture(scope="module")
def built(debian_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Versions on one base, each with a payload of its own."""
    folder = tmp_path_factory.mktemp("send")
    stages = DOCKERFILE
    targets = {}
    for number in range(VERSIONS):
        stages += f"FROM base AS v{number}\nCOPY --link payload{number} /payload\nLABEL version={number}\n"
        (folder / f"payload{number}").write_bytes(bytes(range(256)) * 500 + bytes([number]))
        targets[f"v{number}"] = {"context": str(folder), "target": f"v{number}", "tags": [f"{NAME}:v{number}"]}
    (folder / "Dockerfile").write_text(stages)
    file = {"group": {"default": {"targets": list(targets)}}, "target": targets}
    (folder / "bake.json").write_text(json.dumps(file))
    run(["docker", "buildx", "bake", "--file", folder / "bake.json", "--load"])
    yield [f"{NAME}:v{number}" for number in range(VERSIONS)]
    run(["docker", "image", "rm", *(f"{NAME}:v{number}" for number in range(VERSIONS))])


@pytest.fixture
def names(engine: Any) -> Iterator[list[str]]:
    """What `named` has named; the engine forgets it."""
    made: list[str] = []
    yield made
    for reference in made:
        with contextlib.suppress(docker.errors.ImageNotFound):
            engine.api.remove_image(reference, noprune=True)


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    """In front of an empty registry."""
    with registry_server(tmp_path / "registry") as address, faulty_proxy(address) as proxy:
        yield proxy


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "cache", jobs=3, wait=lambda _: None)


def named(engine: Any, built: Sequence[str], repository: str, names: list[str]) -> list[str]:
    """These images under names in this repository."""
    for each in built:
        engine.api.tag(each, repository, each.rpartition(":")[2])
    found = [f"{repository}:{each.rpartition(':')[2]}" for each in built]
    names += found
    return found


def unique_bytes(pushed: Sequence[Pushed]) -> int:
    """The bytes of all blobs that the registry has for these, each counted once."""
    sizes: dict[str, int] = {}
    for each in pushed:
        host, _, rest = each.reference.partition("/")
        manifest = json.loads(Registry(host).manifest(rest.rpartition(":")[0], each.digest)[2])
        sizes |= {blob["digest"]: blob["size"] for blob in [manifest["config"], *manifest["layers"]]}
    return sum(sizes.values())


def test_each_layer_goes_out_once(
    engine: Any, built: list[str], proxy: Proxy, settings: Settings, said: list[str], names: list[str]
) -> None:
    """For all versions, and in two repositories."""
    references = named(engine, built, f"{proxy.address}/one", names)
    references += named(engine, built, f"{proxy.address}/two/deep", names)
    pushed = pushing.push(engine, references, settings, say=said.append)
    assert not [line for line in said if "the engine pushes" in line], said
    assert [each.reference for each in pushed] == references
    assert not any(each.skipped for each in pushed)
    configurations = sum(size for what, size in proxy.sent if "two/deep/blobs" in what)
    assert proxy.blob_bytes == unique_bytes(pushed) + configurations
    assert configurations < 20_000  # as each repository has its own; layers were taken over
    assert not list((settings.cache / "packed").iterdir())
    ids = {reference: engine.api.inspect_image(reference)["Id"] for reference in references}
    for each in pushed:
        assert engine.api.inspect_distribution(each.reference)["Descriptor"]["digest"] == each.digest
        assert each.image == ids[each.reference]


def test_a_registry_gives_back_the_same_image(
    engine: Any, built: list[str], proxy: Proxy, settings: Settings, said: list[str], names: list[str]
) -> None:
    """Every layer unpacks to what its digest says, and the engine gets an image of the same id."""
    reference = named(engine, built[:1], f"{proxy.address}/back", names)[0]
    pushed = pushing.push(engine, [reference], settings, say=said.append)[0]
    remote = Registry(proxy.address)
    manifest = json.loads(remote.manifest("back", pushed.digest)[2])
    assert manifest["config"]["digest"] == pushed.image
    image = engine.api.inspect_image(reference)
    blobs = [b"".join(remote.blob("back", each["digest"], size=each["size"])) for each in manifest["layers"]]
    unpacked = ["sha256:" + hashlib.sha256(gzip.decompress(blob)).hexdigest() for blob in blobs]
    assert unpacked == image["RootFS"]["Layers"]
    for name in (reference, built[0]):
        engine.api.remove_image(name)
    run(["docker", "pull", reference])
    assert engine.api.inspect_image(reference)["Id"] == pushed.image
    engine.api.tag(reference, *built[0].split(":"))


def test_what_is_there_is_not_sent_again(
    engine: Any, built: list[str], proxy: Proxy, settings: Settings, said: list[str], names: list[str]
) -> None:
    references = named(engine, built, f"{proxy.address}/again", names)
    pushing.push(engine, references[:-1], settings, say=said.append)
    proxy.forget()
    assert all(each.skipped for each in pushing.push(engine, references[:-1], settings, say=said.append))
    assert not [ask for ask in proxy.asked if ask.split()[0] not in {"GET", "HEAD"}]
    proxy.forget()
    more = pushing.push(engine, references, settings, say=said.append)
    assert [each.skipped for each in more] == [True, True, True, False]
    assert 0 < proxy.blob_bytes < 10_000  # one payload and one configuration
    shutil.rmtree(settings.cache)
    proxy.forget()
    anew = pushing.push(engine, references, settings, say=said.append)
    assert [each.digest for each in anew] == [each.digest for each in more]
    assert proxy.blob_bytes == 0  # packed again, to the same bytes


def test_a_tag_that_has_moved(
    engine: Any, built: list[str], proxy: Proxy, settings: Settings, said: list[str], names: list[str]
) -> None:
    references = named(engine, built[:2], f"{proxy.address}/moved", names)
    first = pushing.push(engine, references, settings, say=said.append)
    engine.api.tag(built[2], f"{proxy.address}/moved", "v0")
    again = pushing.push(engine, references, settings, say=said.append)
    assert [each.skipped for each in again] == [False, True]
    assert again[0].digest != first[0].digest
    assert Registry(proxy.address).manifest("moved", "v0")[0] == again[0].digest


def test_a_layer_that_is_refused_and_the_next_push(
    engine: Any, built: list[str], proxy: Proxy, settings: Settings, said: list[str], names: list[str]
) -> None:
    """The images that do not need it are pushed; then only what is missing."""
    first = pushing.push(engine, named(engine, built[:1], f"{proxy.address}/part", names), settings, say=said.append)
    references = named(engine, built[1:3], f"{proxy.address}/part", names)
    references += named(engine, built[3:], f"{proxy.address}/other", names)
    proxy.faults.append(Fault("POST", "/other/blobs/uploads/", 403, times=1000))
    with pytest.raises(RegistryError, match="1 of 3 images were not pushed") as caught:
        pushing.push(engine, references, settings, say=said.append)
    assert caught.value.hint.startswith("docker login")
    layers = engine.api.inspect_image(built[3])["RootFS"]["Layers"]
    kept = {f"sha256:{file.stem}" for file in (settings.cache / "packed").iterdir()}
    assert kept == set(layers)  # packed, and refused
    proxy.faults.clear()
    proxy.forget()
    pushed = pushing.push(engine, references, settings, say=said.append)
    assert [each.skipped for each in pushed] == [True, True, False]
    assert unique_bytes([*first, *pushed]) > 3_000_000
    assert 0 < proxy.blob_bytes < 10_000
    assert not list((settings.cache / "packed").iterdir())


def test_a_registry_out_of_order(
    engine: Any, built: list[str], proxy: Proxy, settings: Settings, said: list[str], names: list[str]
) -> None:
    references = named(engine, built, f"{proxy.address}/flaky", names)
    proxy.faults += [Fault("PUT", "/manifests/", 503, times=2), Fault("POST", "/blobs/", 500, times=2)]
    proxy.faults += [Fault("PATCH", "/blobs/", 0, times=1), Fault("HEAD", "/manifests/", 429, times=2)]
    # The proxy waits for more than a short body has.
    pushed = pushing.push(engine, references, replace(settings, stall_seconds=2), say=said.append)
    assert not any(each.skipped for each in pushed)
    assert not [fault for fault in proxy.faults if fault.times]
    assert [line for line in said if "out of order; again in" in line]
    for each in pushed:
        assert Registry(proxy.address).manifest("flaky", each.reference.rpartition(":")[2])[0] == each.digest


def test_a_registry_that_stalls(
    engine: Any, built: list[str], proxy: Proxy, settings: Settings, said: list[str], names: list[str]
) -> None:
    """It is tried once more, then given up."""
    reference = named(engine, built[:1], f"{proxy.address}/stall", names)[0]
    proxy.faults.append(Fault("POST", "/blobs/uploads/", STALL, times=1000))
    hasty = replace(settings, stall_seconds=0.5, jobs=1)
    with pytest.raises(
        RegistryError, match=r"the registry stalls: nothing came for 0.5 s.*; tried 2 times"
    ) as caught:
        pushing.push(engine, [reference], hasty, say=said.append)
    assert caught.value.hint == "push again; what is there is skipped"


def test_another_image_under_the_tag(
    engine: Any, built: list[str], proxy: Proxy, settings: Settings, said: list[str], names: list[str]
) -> None:
    """Somebody else pushes to the same tag between our push and our look."""
    theirs, ours = named(engine, built[:2], f"{proxy.address}/tag", names)
    found = pushing.push(engine, [theirs], settings, say=said.append)[0].digest
    proxy.faults += [
        Fault("HEAD", "/manifests/v1", 404, times=1),
        Fault("HEAD", "/manifests/v1", 200, times=1000, instead="/manifests/v0"),
    ]
    with pytest.raises(RegistryError, match=f"but the registry has {found} under this tag"):
        pushing.push(engine, [ours], settings, say=said.append)


def test_a_registry_that_wants_a_login(
    engine: Any,
    built: list[str],
    settings: Settings,
    said: list[str],
    names: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with registry_server(tmp_path / "closed", users=USERS) as address:
        references = named(engine, built[:2], f"{address}/closed", names)
        with pytest.raises(RegistryError) as caught:
            pushing.push(engine, references, settings, say=said.append)
        assert caught.value.hint == f"docker login {address}"
        login = base64.b64encode(b"me:secret-pass").decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {address: {"auth": login}}}))
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        assert not any(each.skipped for each in pushing.push(engine, references, settings, say=said.append))


def test_a_push_that_is_killed_goes_on(
    engine: Any, built: list[str], proxy: Proxy, settings: Settings, said: list[str], names: list[str]
) -> None:
    """SIGKILL when one manifest is missing: then nothing but that is sent."""
    references = named(engine, built, f"{proxy.address}/killed", names)
    proxy.faults.append(Fault("PUT", "/manifests/v3", STALL, times=1))
    with process(
        [sys.executable, "-c", PUSH, settings.cache, *references], cwd=ROOT, stdout=subprocess.DEVNULL
    ) as child:
        assert proxy.stalled.wait(60)
        child.kill()
    again = pushing.push(engine, references, settings, say=said.append)
    assert [each.skipped for each in again] == [True, True, True, False]
    assert proxy.blob_bytes == unique_bytes(again)  # of both runs together
    assert not list(settings.cache.glob("reading-*"))
    running = run(["docker", "ps", "--quiet", "--filter", f"volume={settings.cache}"]).stdout
    assert not running


def test_a_registry_that_does_not_answer_here(
    engine: Any, built: list[str], settings: Settings, said: list[str], names: list[str]
) -> None:
    """The engine may reach it; when it does not either, the error is its."""
    reference = named(engine, built[:1], f"127.0.0.1:{free_port()}/none", names)[0]
    with pytest.raises(RegistryError, match="connection refused"):
        pushing.push(engine, [reference], settings, say=said.append)
    assert said[0].endswith("does not answer here; the engine pushes")


def test_an_image_that_cannot_read_layers(
    engine: Any, proxy: Proxy, settings: Settings, said: list[str], names: list[str], tmp_path: Path
) -> None:
    """One without a shell: then the engine pushes."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    reference = f"{proxy.address}/bare:1"
    run(["docker", "buildx", "build", "--quiet", "--load", "--tag", reference, tmp_path])
    names.append(reference)
    pushed = pushing.push(engine, [reference], settings, say=said.append)
    assert [line for line in said if line.endswith("the engine pushes what is left")]
    assert Registry(proxy.address).manifest("bare", "1")[0] == pushed[0].digest
    assert pushing.push(engine, [reference], settings, say=said.append)[0].skipped


def test_no_room_to_pack(
    engine: Any, built: list[str], proxy: Proxy, settings: Settings, said: list[str], names: list[str]
) -> None:
    """Then the engine pushes, which needs none."""
    reference = named(engine, built[:1], f"{proxy.address}/room", names)[0]
    settings.cache.mkdir()
    (settings.cache / "packed").write_text("in the way")
    pushed = pushing.push(engine, [reference], settings, say=said.append)
    assert "File exists; the engine pushes what is left" in "".join(said)
    assert Registry(proxy.address).manifest("room", "v0")[0] == pushed[0].digest


def test_an_image_that_was_not_built(engine: Any, settings: Settings, said: list[str]) -> None:
    with pytest.raises(InputError, match="not built yet"):
        pushing.push(engine, [f"{NAME}:none"], settings, say=said.append)
