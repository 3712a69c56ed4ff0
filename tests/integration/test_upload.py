"""Blobs sent to a real registry, through a proxy that misbehaves, and to one that keeps what was cut."""

import hashlib
import random
import re
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from edgebuild.errors import RegistryError
from edgebuild.oci import Registry, digest_of
from edgebuild.transport import Patience
from edgebuild.upload import Read, Sent, send_blob
from tests.registry_server import Fault, faulty_proxy, registry_server

HASTY = Patience(connect_seconds=5, read_seconds=5, attempts=3, wait=lambda _: None)
LAYER = random.Random(1).randbytes(3_000_000)  # noqa: S311 - content, no secret


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry_server(tmp_path_factory.mktemp("upload")) as address:
        yield address


def of(data: bytes) -> Read:
    return lambda offset: (data[place : place + 65536] for place in range(offset, len(data), 65536))


def send(registry: Registry, repository: str, data: bytes, *mount_from: str) -> Sent:
    return send_blob(registry, repository, digest_of(data), len(data), of(data), mount_from=mount_from)


def test_sent_once_then_mounted(address: str) -> None:
    registry = Registry(address)
    assert send(registry, "upload/a", LAYER) == Sent("sent", len(LAYER))
    assert send(registry, "upload/a", LAYER) == Sent("there")
    assert send(registry, "upload/b", LAYER, "upload/a") == Sent("mounted")
    assert b"".join(registry.blob("upload/b", digest_of(LAYER), size=len(LAYER))) == LAYER
    assert b"".join(registry.blob("upload/b", digest_of(LAYER), size=len(LAYER), start=1000)) == LAYER[1000:]


def test_what_cannot_be_mounted_is_sent(address: str) -> None:
    data = LAYER[:1000]
    assert send(Registry(address), "upload/c", data, "upload/has-it-not") == Sent("sent", 1000)
    assert send(Registry(address), "upload/c", b"") == Sent("sent", 0)


@pytest.mark.parametrize("method", ["HEAD", "POST", "PATCH", "PUT"])
def test_a_bad_moment_passes(address: str, method: str) -> None:
    data = LAYER[:200_000] + method.encode()
    with faulty_proxy(address) as proxy:
        proxy.faults.append(Fault(method, "/blobs/", 503, 1))
        send(Registry(proxy.address, patience=HASTY), "upload/d", data)
        if method == "PUT":  # what the registry has taken is not sent again
            assert len([line for line in proxy.asked if line.startswith("PATCH")]) == 1
    assert b"".join(Registry(address).blob("upload/d", digest_of(data), size=len(data))) == data


def test_a_cut_upload_ends_whole(address: str) -> None:
    data = LAYER + b"cut"
    with faulty_proxy(address) as proxy:
        proxy.faults.append(Fault("PATCH", "/blobs/uploads/", 0, 1))
        send(Registry(proxy.address, patience=HASTY), "upload/e", data)
    assert b"".join(Registry(address).blob("upload/e", digest_of(data), size=len(data))) == data


def test_other_bytes_are_refused(address: str) -> None:
    with pytest.raises(RegistryError, match="digest"):
        send_blob(Registry(address), "upload/f", digest_of(b"one"), 3, of(b"two"))
    assert not list(_stored(address, "upload/f", digest_of(b"one")))


def _stored(address: str, repository: str, digest: str) -> Iterator[bytes]:
    registry = Registry(address)
    try:
        yield from registry.blob(repository, digest)
    except RegistryError:
        return


def test_an_error_of_the_source_is_the_error(address: str, tmp_path: Path) -> None:
    def broken(offset: int) -> Iterator[bytes]:
        yield LAYER[:1000]
        raise RegistryError("the source is gone")

    with pytest.raises(RegistryError, match="the source is gone"):
        send_blob(Registry(address), "upload/g", digest_of(LAYER), len(LAYER), broken)


def test_flat_memory(address: str) -> None:
    piece, count = LAYER[:1_000_000], 60
    hasher = hashlib.sha256()
    for _ in range(count):
        hasher.update(piece)

    def many(offset: int) -> Iterator[bytes]:
        return iter([piece] * count)

    registry = Registry(address)
    tracemalloc.start()
    try:
        send_blob(registry, "upload/h", f"sha256:{hasher.hexdigest()}", count * len(piece), many)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


class Keeping(BaseHTTPRequestHandler):
    """A registry that keeps what came of a cut upload, and tells how much; docker-registry 2.8 forgets it."""

    protocol_version = "HTTP/1.1"
    kept: ClassVar[bytearray] = bytearray()
    ranges: ClassVar[list[str]] = []
    cut_at: ClassVar[list[int]] = [1_000_000, 500_000]

    def log_message(self, *_: object) -> None: ...

    def answer(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_HEAD(self) -> None:
        self.answer(404)

    def do_POST(self) -> None:
        self.answer(202, Location="/v2/kept/blobs/uploads/1")

    def do_GET(self) -> None:
        self.answer(204, Location="/v2/kept/blobs/uploads/1", Range=f"0-{len(self.kept) - 1}")

    def do_PATCH(self) -> None:
        self.ranges.append(self.headers.get("Content-Range", ""))
        wanted = self.cut_at.pop(0) if self.cut_at else int(self.headers["Content-Length"])
        self.kept.extend(self.rfile.read(wanted))
        if wanted < int(self.headers["Content-Length"]):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.answer(202, Location="/v2/kept/blobs/uploads/1")

    def do_PUT(self) -> None:
        asked = re.search("sha256%3A([0-9a-f]{64})", self.path)
        self.answer(201 if asked and asked[1] == hashlib.sha256(self.kept).hexdigest() else 400)


def test_an_upload_goes_on_where_it_was_cut() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Keeping) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        registry = Registry(f"127.0.0.1:{server.server_port}", patience=HASTY)
        assert send(registry, "kept", LAYER).how == "sent"
        server.shutdown()
        thread.join()
    end = len(LAYER) - 1
    assert Keeping.ranges == ["", f"1000000-{end}", f"1500000-{end}"]
