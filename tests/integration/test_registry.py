"""Push against a real registry, and through a proxy that misbehaves."""

import base64
import contextlib
import io
import json
import os
import random
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from edgebuild import registry as registries
from edgebuild.errors import InputError, RegistryError
from edgebuild.localimages import local_images
from edgebuild.run import run
from tests.registry_server import CUT_AFTER, STALL, USERS, Fault, faulty_proxy, registry_server


@pytest.fixture(autouse=True)
def leave_no_images(engine: Any) -> Iterator[None]:
    yield
    for reference in _made:
        with contextlib.suppress(docker.errors.ImageNotFound):
            engine.api.remove_image(reference, force=True)
    _made.clear()


_made: list[str] = []


def image(engine: Any, reference: str, content: bytes) -> str:
    """A tiny image of our own under this name."""
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            entry = tarfile.TarInfo("content")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        name, _, tag = reference.rpartition(":")
        engine.api.import_image_from_data(buffer.getvalue(), repository=name, tag=tag)
    _made.append(engine.api.inspect_image(reference)["Id"])  # the name may move on to another
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
    assert push(client, [reference], said)[0].skipped  # asking for the digest takes the login along
    client.close()


def test_a_credential_helper_gives_the_login(
    engine: Any, closed_registry: str, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = image(engine, f"{closed_registry}/tests/helper:1", b"x")
    answer = json.dumps({"ServerURL": closed_registry, "Username": "me", "Secret": "secret-pass"})
    helper = tmp_path / "docker-credential-edgebuild-tests"
    helper.write_text(f"#!/bin/sh\ncat >/dev/null\necho '{answer}'\n")
    helper.chmod(0o755)
    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {closed_registry: "edgebuild-tests"}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    from edgebuild.engine import docker_client

    client = docker_client()
    assert [each.skipped for _ in range(2) for each in push(client, [reference], said)] == [False, True]
    client.close()


# Where the engine has no patience of its own; failed uploads it tries five times, for almost a minute.
# One round of the engine asks `/v2/` twice.
@pytest.mark.parametrize(("method", "path", "rounds"), [("PUT", "/manifests/", 2), ("GET", "/v2/", 1)])
@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_transient_faults_are_tried_again(
    engine: Any, registry: str, said: list[str], status: int, method: str, path: str, rounds: int
) -> None:
    with faulty_proxy(registry) as proxy:
        reference = image(engine, f"{proxy.address}/tests/flaky-{status}:1", f"{status}{method}".encode())
        proxy.faults.append(Fault(method, path, status, times=2))
        pushed = push(engine, [reference], said)
        assert not pushed[0].skipped
        assert proxy.faults[0].times == 0
        assert len([line for line in said if "again in" in line]) == rounds, said
        shown = engine.api.inspect_distribution(reference.replace(proxy.address, registry))
        assert shown["Descriptor"]["digest"] == pushed[0].digest


def test_a_registry_that_stays_out_of_order(engine: Any, registry: str, said: list[str]) -> None:
    with faulty_proxy(registry) as proxy:
        reference = image(engine, f"{proxy.address}/tests/down:1", b"down")
        proxy.faults.append(Fault("PUT", "/manifests/", 503, times=1000))
        with pytest.raises(RegistryError, match="503 Service Unavailable") as caught:
            push(engine, [reference], said)
        assert len([ask for ask in proxy.asked if ask.startswith("PUT /v2/tests/down/manifests/")]) == 5
    assert caught.value.hint == "push again; what is there is skipped"


def test_a_connection_cut_in_a_blob(engine: Any, registry: str, said: list[str]) -> None:
    with faulty_proxy(registry) as proxy:
        # Random, so that it does not shrink to less than what is read before the cut.
        content = random.Random(1).randbytes(300_000)  # noqa: S311
        reference = image(engine, f"{proxy.address}/tests/cut:1", content)
        proxy.faults.append(Fault("PATCH", "/blobs/uploads/", 0, times=1))
        pushed = push(engine, [reference], said)
        assert not pushed[0].skipped
        assert proxy.taken == [CUT_AFTER]
        assert engine.api.inspect_distribution(reference)["Descriptor"]["digest"] == pushed[0].digest


@pytest.mark.parametrize(
    ("method", "path"),
    [("HEAD", "/manifests/"), ("POST", "/blobs/uploads/"), ("PATCH", "/blobs/uploads/"), ("PUT", "/manifests/")],
)
def test_a_registry_that_stalls(registry: str, engine: Any, said: list[str], method: str, path: str) -> None:
    from edgebuild.engine import docker_client

    client = docker_client(timeout=1)
    with contextlib.closing(client), faulty_proxy(registry) as proxy:
        reference = image(engine, f"{proxy.address}/tests/stall:1", f"stall{method}{path}".encode())
        proxy.faults.append(Fault(method, path, STALL, times=1000))
        with pytest.raises(RegistryError, match="the registry stalls: nothing came for 1 s") as caught:
            push(client, [reference], said)
        assert caught.value.hint == "push again; what is there is skipped"
        assert len([line for line in said if "again in" in line]) == 1, said
        proxy.faults.clear()
        proxy.ended.set()  # the engine itself does not give up before the connection ends
        assert not push(client, [reference], said)[0].skipped


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


def test_another_image_under_the_tag(engine: Any, registry: str, said: list[str]) -> None:
    """Somebody else pushes to the same tag between our push and our look."""
    with faulty_proxy(registry) as proxy:
        theirs = push(engine, [image(engine, f"{proxy.address}/tests/digest:theirs", b"theirs")], said)[0].digest
        ours = image(engine, f"{proxy.address}/tests/digest:ours", b"ours")
        proxy.faults += [
            Fault("HEAD", "/manifests/ours", 404, times=1),
            Fault("HEAD", "/manifests/ours", 200, times=1000, instead="/manifests/theirs"),
        ]
        with pytest.raises(RegistryError, match=f"but the registry has {theirs} under this tag") as caught:
            push(engine, [ours], said)
    assert caught.value.exit_code == 4
    assert not [line for line in said if "again in" in line]


def test_a_digest_in_the_header_that_nothing_stands_behind(engine: Any, registry: str, said: list[str]) -> None:
    with faulty_proxy(registry) as proxy:
        reference = image(engine, f"{proxy.address}/tests/forged:1", b"forged")
        proxy.faults.append(Fault("HEAD", "/manifests/1", 200, 1000, digest="sha256:" + "0" * 64))
        push(engine, [image(engine, f"{registry}/tests/forged:1", b"old")], said)
        with pytest.raises(RegistryError, match="but the registry has nothing under this tag"):
            push(engine, [reference], said)


def test_local_images(engine: Any, said: list[str]) -> None:
    references = [image(engine, f"edgebuild-tests/local:{name}", b"x" * 1000) for name in ("a", "b")]
    found = local_images(engine, [*references, "edgebuild-tests/local:none"])
    assert [each.reference for each in found] == references
    assert all(0 <= each.age_seconds < 600 for each in found)


def test_what_versions_share_is_exact(engine: Any, said: list[str], tmp_path: Path) -> None:
    """Empty layers and entries without layer stand among the shared ones, as in a provider image."""
    (tmp_path / "base").write_bytes(b"b" * 5000)
    common = "FROM scratch\nARG A=1\nWORKDIR /empty\nUSER root\nCOPY base /base\nWORKDIR /other\n"
    for name, size in (("one", 70), ("two", 900)):
        (tmp_path / name).write_bytes(b"x" * size)
        (tmp_path / "Dockerfile").write_text(f"{common}COPY {name} /own\nLABEL version={name}\n")
        _made.append(f"edgebuild-tests/shared:{name}")
        run(["docker", "buildx", "build", "--quiet", "--load", "--tag", _made[-1], tmp_path])
    found = local_images(engine, list(_made))
    assert [(each.size_bytes, each.shared_bytes) for each in found] == [(5070, 5000), (5900, 5000)]
