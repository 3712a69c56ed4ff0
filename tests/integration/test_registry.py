"""Push against a real registry, and through a proxy that misbehaves."""

import base64
import io
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgebuild import registry as registries
from edgebuild.errors import InputError, RegistryError
from edgebuild.run import run
from tests.registry_server import USERS, Fault, faulty_proxy, registry_server


def image(engine: Any, reference: str, content: bytes) -> str:
    """A tiny image of our own under this name."""
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            entry = tarfile.TarInfo("content")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        name, _, tag = reference.rpartition(":")
        engine.api.import_image_from_data(buffer.getvalue(), repository=name, tag=tag)
    return reference


@pytest.fixture
def said() -> list[str]:
    return []


def push(engine: Any, references: list[str], said: list[str]) -> list[registries.Pushed]:
    return registries.push(engine, references, jobs=2, say=said.append, wait=lambda _: None)


def test_push_then_skip_then_push_what_changed(engine: Any, registry: str, said: list[str]) -> None:
    references = [image(engine, f"{registry}/tests/push:{name}", name.encode()) for name in ("a", "b", "c")]
    first = push(engine, references, said)
    assert [each.reference for each in first] == references
    assert not any(each.skipped for each in first)
    for each in first:
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", each.digest)
        assert engine.api.inspect_distribution(each.reference)["Descriptor"]["digest"] == each.digest
    assert all(each.skipped for each in push(engine, references, said))
    image(engine, references[1], b"changed")
    again = push(engine, references, said)
    assert [each.skipped for each in again] == [True, False, True]
    assert again[1].digest != first[1].digest


def test_an_image_that_was_not_built(engine: Any, registry: str, said: list[str]) -> None:
    with pytest.raises(InputError, match="not built yet") as caught:
        push(engine, [f"{registry}/tests/nothing:1"], said)
    assert "build-provider-images" in caught.value.hint


@pytest.fixture(scope="module")
def closed_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry_server(tmp_path_factory.mktemp("closed"), users=USERS) as address:
        yield address


def test_a_registry_that_wants_a_login(
    engine: Any, closed_registry: str, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = image(engine, f"{closed_registry}/tests/login:1", b"x")
    with pytest.raises(RegistryError) as caught:
        push(engine, [reference], said)
    assert caught.value.exit_code == 4
    assert caught.value.hint == f"docker login {closed_registry}"
    login = base64.b64encode(b"me:secret-pass").decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {closed_registry: {"auth": login}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    from edgebuild.engine import docker_client

    client = docker_client()
    assert not push(client, [reference], said)[0].skipped
    client.close()


@pytest.mark.parametrize("status", [500, 503, 429])
@pytest.mark.parametrize("method", ["PUT", "HEAD"])
def test_transient_faults_are_tried_again(
    engine: Any, registry: str, said: list[str], status: int, method: str
) -> None:
    with faulty_proxy(registry) as proxy:
        reference = image(engine, f"{proxy.address}/tests/flaky:1", f"{status}{method}".encode())
        # More often than the engine's own patience with manifests, less than ours.
        proxy.faults.append(Fault(method, "/manifests/", status, times=2))
        pushed = push(engine, [reference], said)
    assert not pushed[0].skipped
    assert proxy.faults[0].times == 0


def test_a_connection_cut_in_a_blob(engine: Any, registry: str, said: list[str]) -> None:
    with faulty_proxy(registry) as proxy:
        reference = image(engine, f"{proxy.address}/tests/cut:1", b"cut" * 100_000)
        proxy.faults.append(Fault("PATCH", "/blobs/uploads/", 0, times=2))
        assert not push(engine, [reference], said)[0].skipped
    assert proxy.faults[0].times == 0


def test_a_refusal_is_final(engine: Any, registry: str, said: list[str]) -> None:
    with faulty_proxy(registry) as proxy:
        reference = image(engine, f"{proxy.address}/tests/denied:1", b"denied")
        good = image(engine, f"{proxy.address}/tests/allowed:1", b"allowed")
        proxy.faults.append(Fault("POST", "/tests/denied/blobs/uploads/", 403, times=1000))
        with pytest.raises(RegistryError, match="1 of 2 images were not pushed") as caught:
            push(engine, [reference, good], said)
    assert caught.value.exit_code == 4
    assert not [line for line in said if "again in" in line]
    assert engine.api.inspect_distribution(good.replace(proxy.address, registry))


def test_another_digest_in_the_registry(engine: Any, registry: str, said: list[str]) -> None:
    with faulty_proxy(registry) as proxy:
        reference = image(engine, f"{proxy.address}/tests/digest:1", b"digest")
        other = "sha256:" + "0" * 64
        proxy.faults += [Fault("HEAD", "/manifests/", 404, times=1), Fault("HEAD", "/manifests/", 200, 1000, other)]
        with pytest.raises(RegistryError, match="not pushed"):
            push(engine, [reference], said)


def test_local_images(engine: Any, said: list[str]) -> None:
    references = [image(engine, f"edgebuild-tests/local:{name}", b"x" * 1000) for name in ("a", "b")]
    found = registries.local_images(engine, [*references, "edgebuild-tests/local:none"])
    assert [each.reference for each in found] == references
    assert all(0 <= each.age_seconds < 600 for each in found)
    run(["docker", "image", "rm", *references])
