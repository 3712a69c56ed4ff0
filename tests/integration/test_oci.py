"""The client of the distribution API against a real registry, and through a proxy that misbehaves."""

import base64
import contextlib
import hashlib
import json
import random
import ssl
import threading
import tracemalloc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from edgebuild import oci
from edgebuild.engine import insecure_by, is_insecure
from edgebuild.errors import RegistryError
from edgebuild.oci import Registry, check_image, check_images, describe, digest_of
from edgebuild.referrers import attach, referrers
from edgebuild.run import run
from edgebuild.transport import BadMoment, NotThere, Patience
from tests.registry_server import USERS, Fault, faulty_proxy, registry_server

REPOSITORY = "tests/oci"
waits: list[float] = []
HASTY = Patience(connect_seconds=5, read_seconds=0.5, attempts=3, wait=waits.append)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the registry of these tests keeps its data."""
    return tmp_path_factory.mktemp("oci")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with registry_server(folder) as address:
        yield address


@pytest.fixture(autouse=True)
def no_waits() -> None:
    waits.clear()


def publish(registry: Registry, tag: str, *layers: bytes, repository: str = REPOSITORY) -> str:
    """An image of these layers; returns its digest."""
    config = json.dumps({"os": "linux", "tag": tag}).encode()
    for blob in (config, *layers):
        registry.put_blob(repository, blob)
    manifest = {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST,
        "config": describe("application/vnd.oci.image.config.v1+json", config),
        "layers": [describe("application/vnd.oci.image.layer.v1.tar", layer) for layer in layers],
    }
    return registry.put_manifest(repository, tag, json.dumps(manifest).encode(), oci.MANIFEST)


def noise(seed: int, size: int = 300_000) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311 - content, no secret


def test_what_was_put_is_there(address: str) -> None:
    registry = Registry(address)
    digest = publish(registry, "1", b"layer")
    found, media_type, data = registry.manifest(REPOSITORY, "1")
    assert (found, media_type) == (digest, oci.MANIFEST)
    assert registry.manifest(REPOSITORY, digest) == (digest, media_type, data)
    assert b"".join(registry.blob(REPOSITORY, digest_of(b"layer"))) == b"layer"
    assert registry.exists(REPOSITORY, "1")
    assert not registry.exists(REPOSITORY, "2")
    assert check_image(f"{address}/{REPOSITORY}:1", digest, registry) == []
    with pytest.raises(NotThere) as caught:
        registry.manifest(REPOSITORY, "2")
    assert "manifests/2: 404 Not Found: manifest unknown" in caught.value.message
    assert caught.value.exit_code == 4
    assert caught.value.hint


def test_another_tag_keeps_the_digest(address: str) -> None:
    registry = Registry(address)
    digest = publish(registry, "candidate", b"candidate")
    registry.retag(REPOSITORY, digest, "final")
    assert registry.manifest(REPOSITORY, "final")[0] == digest


def test_an_index_is_checked_with_its_children(address: str, folder: Path) -> None:
    registry, layer = Registry(address), noise(1)
    child = registry.manifest(REPOSITORY, publish(registry, "child", layer))[2]
    index = json.dumps({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [describe(oci.MANIFEST, child)]})
    digest = registry.put_manifest(REPOSITORY, "index", index.encode(), oci.INDEX)
    assert check_image(f"{address}/{REPOSITORY}:index", digest, registry) == []
    with changed(folder, digest_of(layer)):
        assert "layer 1 of 1" in check_image(f"{address}/{REPOSITORY}:index", digest, registry)[0]


class changed:
    """One bit of a blob is another, in the registry's storage, for as long as the block lasts."""

    def __init__(self, folder: Path, digest: str) -> None:
        name = digest.removeprefix("sha256:")
        self.file = folder / f"data/docker/registry/v2/blobs/sha256/{name[:2]}/{name}/data"
        self.whole = self.file.read_bytes()

    def __enter__(self) -> None:
        half = len(self.whole) // 2
        self.file.write_bytes(self.whole[:half] + bytes([self.whole[half] ^ 1]) + self.whole[half + 1 :])

    def __exit__(self, *_: object) -> None:
        self.file.write_bytes(self.whole)


def test_a_changed_byte_in_the_storage_is_named(address: str, folder: Path) -> None:
    registry, layers = Registry(address), [noise(seed) for seed in range(3)]
    digest = publish(registry, "changed", *layers)
    reference = f"{address}/{REPOSITORY}:changed"
    with changed(folder, digest_of(layers[2])):
        expected = f"layer 3 of 3 ({digest_of(layers[2])}, 0.3 MB) of {reference}: the registry serves other bytes"
        assert check_image(reference, digest, registry) == [expected]
    manifest = json.loads(registry.manifest(REPOSITORY, digest)[2])
    with changed(folder, manifest["config"]["digest"]):
        assert check_image(reference, digest, registry)[0].startswith("configuration (sha256:")
    with changed(folder, digest):
        problems = check_image(reference, digest, registry)
    assert len(problems) == 1
    assert reference in problems[0]
    assert check_image(reference, digest, registry) == []


def test_a_layer_that_is_gone_is_named(address: str, folder: Path) -> None:
    registry, layer = Registry(address), noise(11)
    digest = publish(registry, "gone", b"stays", layer)
    name = digest_of(layer).removeprefix("sha256:")
    file = folder / f"data/docker/registry/v2/blobs/sha256/{name[:2]}/{name}/data"
    whole = file.read_bytes()
    file.unlink()
    problems = check_image(f"{address}/{REPOSITORY}:gone", digest, registry)
    file.write_bytes(whole[:-1])
    assert len(problems) == 1
    assert problems[0].startswith("layer 2 of 2")
    assert problems[0].endswith("the registry has none")
    problems = check_image(f"{address}/{REPOSITORY}:gone", digest, registry)
    assert problems[0].endswith("299999 of its 300000 bytes")
    file.write_bytes(whole)


def test_what_images_share_is_read_once_and_named_for_each(address: str, folder: Path) -> None:
    registry, shared = Registry(address), noise(4)
    images = [(f"{address}/{REPOSITORY}:{tag}", publish(registry, tag, shared, tag.encode())) for tag in ("a", "b")]
    with faulty_proxy(address) as proxy:
        through = [(reference.replace(address, proxy.address), digest) for reference, digest in images]
        assert check_images(through) == []
        assert len([ask for ask in proxy.asked if digest_of(shared) in ask]) == 1
    with changed(folder, digest_of(shared)):
        assert ["layer 1 of 2" in problem for problem in check_images(images)] == [True, True]


def test_a_manifest_of_others_making_is_a_problem_and_no_traceback(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(address)
    digest = publish(registry, "odd", b"odd")
    odd = [b"[]", b"no json", b"{}", b'{"config": [], "layers": 3}', b'{"config": {"digest": 3}, "layers": [4]}']
    odd += [b'{"config": {"digest": "x", "size": "y"}, "layers": [{"size": 1%s}]}' % (b"0" * 999), b"[" * 100_000]
    odd += [b'{"manifests": [{"digest": "latest"}, {"digest": "../../x"}, 7]}', deep(5)]
    for data in odd:
        other = Registry(address, patience=HASTY)
        monkeypatch.setattr(other, "manifest", lambda _, asked, data=data: (asked, oci.MANIFEST, data))
        problems = check_image(f"{address}/{REPOSITORY}:odd", digest, other)
        assert 1 <= len(problems) <= 2, data


def deep(level: int) -> bytes:
    return json.dumps({"manifests": [{"digest": digest_of(str(level).encode())}]}).encode()


def test_a_large_layer_takes_no_memory(address: str) -> None:
    registry = Registry(address)
    digest = publish(registry, "large", noise(5, 40_000_000))
    tracemalloc.start()
    try:
        assert check_image(f"{address}/{REPOSITORY}:large", digest, registry) == []
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_is_final(address: str, status: int) -> None:
    publish(Registry(address), "refused", b"refused")
    with faulty_proxy(address) as proxy:
        proxy.faults.append(Fault("GET", "/manifests/", status, times=99))
        with pytest.raises(RegistryError, match=str(status)) as caught:
            Registry(proxy.address, patience=HASTY).manifest(REPOSITORY, "refused")
        assert len(proxy.asked) == 1
    login = f"docker login {proxy.address}"
    assert caught.value.hint == login if status != 404 else "image.repository" in caught.value.hint
    assert waits == []


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_bad_moment_passes(address: str, status: int) -> None:
    registry = Registry(address)
    digest = publish(registry, "moment", b"moment")
    with faulty_proxy(address) as proxy:
        through = Registry(proxy.address, patience=HASTY)
        headers = {"Retry-After": "7"}
        for method, path in (("GET", "/manifests/"), ("GET", "/blobs/"), ("PUT", "/manifests/"), ("HEAD", "/blobs/")):
            proxy.faults.append(Fault(method, path, status, times=1, headers=headers))
        proxy.faults.append(Fault("POST", "/blobs/uploads/", status, times=1))
        assert check_image(f"{proxy.address}/{REPOSITORY}:moment", digest, through) == []
        through.put_blob(REPOSITORY, noise(status, 1000))
        through.retag(REPOSITORY, digest, f"moment-{status}")
        assert not any(fault.times for fault in proxy.faults)
    assert waits.count(7) == 4
    assert len(waits) == 5


def test_a_registry_that_stays_out_of_order(address: str) -> None:
    with faulty_proxy(address) as proxy:
        proxy.faults.append(Fault("GET", "/manifests/", 503, times=99, headers={"Retry-After": "86400"}))
        with pytest.raises(RegistryError, match="503 Service Unavailable; tried 3 times") as caught:
            Registry(proxy.address, patience=HASTY).manifest(REPOSITORY, "1")
        assert not isinstance(caught.value, BadMoment)
        assert len(proxy.asked) == 3
    assert waits == [60, 60]


def test_a_blob_that_is_cut_goes_on_where_it_was(address: str) -> None:
    registry, layer = Registry(address), noise(6)
    digest = publish(registry, "cut", layer)
    with faulty_proxy(address) as proxy:
        proxy.faults.append(Fault("GET", f"/blobs/{digest_of(layer)}", 200, times=2, body="cut"))
        through = Registry(proxy.address, patience=HASTY)
        assert b"".join(through.blob(REPOSITORY, digest_of(layer), size=len(layer))) == layer
        proxy.faults[0].times = 99
        with pytest.raises(RegistryError, match="broke off"):
            check_image(f"{proxy.address}/{REPOSITORY}:cut", digest, through)
        proxy.faults.append(Fault("GET", f"/manifests/{digest}", 0, times=1))
        assert through.manifest(REPOSITORY, digest)[0] == digest


def test_a_registry_without_ranges(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers a range with the whole; what is known already is passed over."""
    layer = noise(7)
    publish(Registry(address), "whole", layer)
    with faulty_proxy(address) as proxy:
        proxy.faults.append(Fault("GET", "/blobs/", 200, times=1, body="cut"))
        through = Registry(proxy.address, patience=HASTY)
        send = through.http.send
        without: dict[str, dict[str, str]] = {"headers": {}}
        monkeypatch.setattr(through.http, "send", lambda *given, **named: send(*given, **{**named, **without}))
        assert b"".join(through.blob(REPOSITORY, digest_of(layer), size=len(layer))) == layer


@pytest.mark.parametrize("path", ["/manifests/", "/blobs/"])
def test_a_stalled_registry_ends_in_an_error(address: str, path: str) -> None:
    registry = Registry(address)
    digest = publish(registry, "stall", noise(8))
    with faulty_proxy(address) as proxy:
        proxy.faults.append(Fault("GET", path, 200, times=99, body="stall"))
        with pytest.raises(RegistryError, match=r"timed out.*; tried 3 times") as caught:
            check_image(f"{proxy.address}/{REPOSITORY}:stall", digest, Registry(proxy.address, patience=HASTY))
        assert caught.value.exit_code == 4


def test_other_bytes_and_another_digest(address: str) -> None:
    registry = Registry(address)
    digest, other = publish(registry, "ours", b"ours"), publish(registry, "theirs", b"theirs")
    with faulty_proxy(address) as proxy:
        through, reference = Registry(proxy.address, patience=HASTY), f"{proxy.address}/{REPOSITORY}:ours"
        proxy.faults.append(Fault("GET", "/blobs/", 200, times=1, body="other"))
        assert check_image(reference, digest, through)[0].endswith("the registry serves other bytes")
        proxy.faults.append(Fault("GET", f"/manifests/{digest}", 200, times=1, body="other"))
        assert check_image(reference, digest, through) != []
        proxy.faults.append(Fault("GET", f"/manifests/{digest}", 200, times=1, instead=f"/manifests/{other}"))
        problem = f"the registry names {digest}, but serves {other}"
        assert problem in check_image(reference, digest, through)[0]
        proxy.faults.append(Fault("GET", "/manifests/ours", 200, times=1, digest=other))
        with pytest.raises(RegistryError, match=f"names {other}, but serves {digest}"):
            through.manifest(REPOSITORY, "ours")
        proxy.faults.append(Fault("PUT", "/manifests/", 201, times=1, digest=other))
        with pytest.raises(RegistryError, match=f"sent {digest}, but the registry took {other}"):
            through.retag(REPOSITORY, digest, "again")


def test_nobody_there() -> None:
    with pytest.raises(RegistryError, match=r"Connection refused; tried 3 times"):
        Registry("127.0.0.1:1", patience=HASTY).manifest(REPOSITORY, "1")
    with pytest.raises(RegistryError, match=r"Name or service not known|name resolution") as caught:
        Registry("registry.invalid", patience=HASTY).manifest(REPOSITORY, "1")
    assert "registry.invalid" in caught.value.message


def docker_config(folder: Path, monkeypatch: pytest.MonkeyPatch, **content: object) -> None:
    """Docker's own configuration, for this test."""
    (folder / "config.json").write_text(json.dumps(content))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))


def test_a_registry_that_wants_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with registry_server(tmp_path / "closed", users=USERS) as closed:
        docker_config(tmp_path, monkeypatch)
        with pytest.raises(RegistryError, match="401 Unauthorized") as caught:
            publish(Registry(closed), "1", b"x")
        assert caught.value.hint == f"docker login {closed}"
        docker_config(tmp_path, monkeypatch, auths={closed: {"auth": base64.b64encode(b"me:wrong").decode()}})
        with pytest.raises(RegistryError, match="401 Unauthorized") as caught:
            publish(Registry(closed), "1", b"x")
        assert "wrong" not in str(caught.value)
        docker_config(tmp_path, monkeypatch, auths={closed: {"auth": base64.b64encode(b"me:secret-pass").decode()}})
        assert check_image(f"{closed}/{REPOSITORY}:1", publish(Registry(closed), "1", b"x"), Registry(closed)) == []
        helper = tmp_path / "docker-credential-edgebuild-oci"
        answer = json.dumps({"ServerURL": closed, "Username": "me", "Secret": "secret-pass"})
        helper.write_text(f"#!/bin/sh\ncat >/dev/null\necho '{answer}'\n")
        helper.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        docker_config(tmp_path, monkeypatch, credHelpers={closed: "edgebuild-oci"})
        assert Registry(closed).exists(REPOSITORY, "1")
        helper.write_text("#!/bin/sh\necho broken\nexit 1\n")
        with pytest.raises(RegistryError, match="no login") as caught:
            Registry(closed).exists(REPOSITORY, "1")
        assert caught.value.hint == f"docker login {closed}"


class TokenServer(BaseHTTPRequestHandler):
    """A registry of one manifest that wants a bearer token, and the server that gives it; notes what it is asked."""

    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, str]]  # request and Authorization
    forms: list[dict[str, list[str]]]
    manifest = b'{"schemaVersion": 2}'

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        authorization = self.headers.get("Authorization", "")
        self.asked.append((self.path, authorization))
        if self.path.startswith("/token"):
            allowed = authorization == "Basic " + base64.b64encode(b"me:secret-pass").decode()
            self.answer(200 if allowed else 401, b'{"token": "the-token"}' if allowed else b"{}")
        elif authorization != "Bearer the-token":
            realm = f"http://{self.headers['Host']}/token"
            wanted = f'Bearer realm="{realm}",service="tests",scope="repository:{REPOSITORY}:pull"'
            self.answer(401, b"{}", {"WWW-Authenticate": wanted})
        else:
            self.answer(200, self.manifest, {"Content-Type": oci.MANIFEST})

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.asked.append((self.path, self.headers.get("Authorization", "")))
        self.forms.append(form)
        allowed = form.get("refresh_token") == ["an-identity"]
        self.answer(200 if allowed else 401, b'{"access_token": "the-token"}' if allowed else b"{}")

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def served(handler: type[TokenServer], context: ssl.SSLContext | None = None) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign] # a client that does not trust us says so
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def token_server() -> Iterator[tuple[str, type[TokenServer]]]:
    handler = type("Handler", (TokenServer,), {"asked": [], "forms": []})
    with served(handler) as address:
        yield address, handler


def test_a_token_by_user_and_password(
    token_server: tuple[str, type[TokenServer]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, handler = token_server
    docker_config(tmp_path, monkeypatch)
    with pytest.raises(RegistryError, match=f"login at {address}: 401") as caught:
        Registry(address).manifest(REPOSITORY, "1")
    assert caught.value.hint == f"docker login {address}"
    docker_config(tmp_path, monkeypatch, auths={address: {"auth": base64.b64encode(b"me:secret-pass").decode()}})
    handler.asked.clear()
    registry = Registry(address)
    for _ in range(2):
        assert registry.manifest(REPOSITORY, "1")[2] == handler.manifest
    paths = [urlsplit(path).path for path, _ in handler.asked]
    manifest = f"/v2/{REPOSITORY}/manifests/1"
    assert paths == [manifest, "/token", manifest, manifest]  # the token is kept
    query = parse_qs(urlsplit(handler.asked[1][0]).query)
    assert query == {"service": ["tests"], "scope": [f"repository:{REPOSITORY}:pull"]}
    assert handler.asked[0][1] == ""
    assert handler.asked[2][1] == "Bearer the-token"


def test_a_token_by_identity(
    token_server: tuple[str, type[TokenServer]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, handler = token_server
    docker_config(tmp_path, monkeypatch, auths={address: {"identitytoken": "an-identity"}})
    assert Registry(address).manifest(REPOSITORY, "1")[2] == handler.manifest
    assert handler.forms == [
        {
            "grant_type": ["refresh_token"],
            "client_id": ["edgebuild"],
            "refresh_token": ["an-identity"],
            "service": ["tests"],
            "scope": [f"repository:{REPOSITORY}:pull"],
        }
    ]


def test_a_login_goes_nowhere_else(
    token_server: tuple[str, type[TokenServer]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry leads to another host, by a redirect and for an upload; ~/.netrc knows that host."""
    other, handler = token_server
    digest = digest_of(b"data")

    class Leads(TokenServer):
        def do_GET(self) -> None:
            self.asked.append((self.path, self.headers.get("Authorization", "")))
            if not self.headers.get("Authorization"):
                self.answer(401, b"", {"WWW-Authenticate": 'Basic realm="tests"'})
            else:
                self.answer(307, b"", {"Location": f"http://{other}{self.path}"})

        def do_HEAD(self) -> None:
            self.answer(404, b"")

        def do_POST(self) -> None:
            self.answer(202, b"", {"Location": f"http://{other}/v2/elsewhere/{REPOSITORY}/upload"})

    def do_put(self: TokenServer) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append((self.path, self.headers.get("Authorization", "")))
        self.answer(201, b"")

    handler.do_PUT = do_put  # type: ignore[attr-defined]
    with served(type("Handler", (Leads,), {"asked": [], "forms": []})) as address:
        docker_config(tmp_path, monkeypatch, auths={address: {"auth": base64.b64encode(b"me:secret-pass").decode()}})
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password of-netrc\n")
        (tmp_path / "netrc").chmod(0o600)
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        registry = Registry(address, patience=HASTY)
        with pytest.raises(RegistryError, match="401"):
            registry.manifest(REPOSITORY, "1")
        assert registry.put_blob(REPOSITORY, b"data") == digest
    assert [authorization for _, authorization in handler.asked] == ["", ""]


def test_no_proxy_on_the_way_to_loopback(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert not Registry(address).exists(REPOSITORY, "none")


def test_tls_by_the_certificates_that_docker_is_given(
    token_server: tuple[str, type[TokenServer]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["-subj", "/CN=tests", "-addext", "subjectAltName=IP:127.0.0.1"]
    key, certificate = tmp_path / "tls.key", tmp_path / "tls.crt"
    run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *names, "-keyout", key, "-out", certificate])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setattr("edgebuild.transport.plain", lambda _: False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    asked: list[tuple[str, str]] = []
    with served(type("Handler", (TokenServer,), {"asked": asked, "forms": []}), context) as address:

        def registry() -> Registry:
            folder = tmp_path / "certs.d"
            return Registry(address, patience=HASTY, certificates=folder, insecure=lambda _: False)

        with pytest.raises(RegistryError, match="certificate verify failed") as caught:
            registry().manifest(REPOSITORY, "1")
        assert f"/etc/docker/certs.d/{address}/ca.crt" in caught.value.hint
        folder = tmp_path / "certs.d" / address
        folder.mkdir(parents=True)
        (folder / "ca.crt").write_bytes(certificate.read_bytes())
        # It wants the login at an http:// address, which is refused.
        with pytest.raises(RegistryError, match="which is not encrypted"):
            registry().manifest(REPOSITORY, "1")
        assert len(asked) == 1


@pytest.mark.parametrize("tls", [True, False])
def test_a_registry_that_the_engine_uses_without_tls(
    tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only when the engine is told so; then with TLS of whoever answers, or without any."""
    context = None
    if tls:
        key, certificate = tmp_path / "tls.key", tmp_path / "tls.crt"
        names = ["-subj", "/CN=nobody", "-keyout", str(key), "-out", str(certificate)]
        run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *names])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
    monkeypatch.setattr("edgebuild.transport.plain", lambda _: False)
    docker_config(tmp_path, monkeypatch)

    class Open(TokenServer):
        def do_GET(self) -> None:
            self.answer(200, self.manifest, {"Content-Type": oci.MANIFEST})

    asked: list[str] = []

    def insecure(host: str) -> bool:
        asked.append(host)
        return True

    with served(Open, context) as address:
        registry = Registry(address, patience=HASTY, insecure=insecure)
        for _ in range(2):
            assert registry.manifest(REPOSITORY, "1")[2] == TokenServer.manifest
        assert asked == [address]
        with pytest.raises(RegistryError):
            Registry(address, patience=HASTY, insecure=lambda _: False).manifest(REPOSITORY, "1")


def test_what_the_engine_is_told_of_registries(engine: object) -> None:
    assert is_insecure("127.0.0.1:5000")  # as every engine is
    assert not is_insecure("registry.example.com")
    told = {
        "IndexConfigs": {"lab:5000": {"Secure": False}, "x": {"Secure": True}},
        "InsecureRegistryCIDRs": ["10.0.0.0/8"],
    }
    names = ("lab:5000", "lab", "x", "10.1.2.3:80", "11.1.2.3", "[::1]:5000", "", "a b", "[x")
    assert [name for name in names if insecure_by(told, name)] == ["lab:5000", "10.1.2.3:80"]
    assert not insecure_by({}, "lab:5000")


def test_attached_and_found(address: str) -> None:
    registry = Registry(address)
    digest = publish(registry, "subject", b"subject")
    first = attach(registry, REPOSITORY, digest, "application/x-one", "application/json", b"{}", {"a": "1"})
    second = attach(registry, REPOSITORY, digest, "application/x-two", "text/plain", b"two")
    assert attach(registry, REPOSITORY, digest, "application/x-two", "text/plain", b"two") == second
    found = referrers(registry, REPOSITORY, digest)
    assert [(each["digest"], each["artifactType"]) for each in found] == [
        (first, "application/x-one"),
        (second, "application/x-two"),
    ]
    assert found[0]["annotations"] == {"a": "1"}
    assert referrers(registry, REPOSITORY, digest, "application/x-two") == found[1:]
    manifest = json.loads(registry.manifest(REPOSITORY, second)[2])
    assert manifest["subject"]["digest"] == digest
    assert registry.read_blob(REPOSITORY, manifest["layers"][0]) == b"two"
    assert referrers(registry, REPOSITORY, publish(registry, "alone", b"alone")) == []
    assert registry.exists(
        REPOSITORY, f"sha256-{hashlib.sha256(registry.manifest(REPOSITORY, digest)[2]).hexdigest()}"
    )
