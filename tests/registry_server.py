"""A real registry on loopback (Debian's docker-registry), and a proxy in front of it that misbehaves on request."""

import contextlib
import http.client
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from edgebuild.run import process, run

CUT_AFTER = 10_000  # bytes of a body
STALL = -1  # the status of an answer that never comes
# The htpasswd line of user `me` with password `secret-pass`.
USERS = "me:$2b$05$DJTK7as6lChwi/sdfeGzuO3ng6aL85FCGNMKowA6X2rWoL/TjFv8y\n"


def install() -> None:
    """Install the registry from the distribution's packages when it is missing."""
    if not shutil.which("docker-registry"):
        run(["apt-get", "update"])
        run(
            ["apt-get", "install", "--yes", "--no-install-recommends", "docker-registry"],
            env={"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"},
        )
        if Path("/run/systemd/system").is_dir():  # the package starts its service; the tests start their own
            run(["systemctl", "disable", "--now", "docker-registry"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def registry_server(folder: Path, *, users: str = "", host: str = "127.0.0.1") -> Iterator[str]:
    """Serve from `folder` at an address of this machine; yields host:port.

    `users` is an htpasswd text, and makes a login necessary.
    """
    install()
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    text = f"version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {folder / 'data'}}}\n"
    text += f"http:\n  addr: {host}:{port}\n"
    if users:
        (folder / "htpasswd").write_text(users)
        text += f"auth:\n  htpasswd: {{realm: tests, path: {folder / 'htpasswd'}}}\n"
    (folder / "config.yml").write_text(text)
    with (folder / "log").open("wb") as log:
        argv = ["docker-registry", "serve", str(folder / "config.yml")]
        with process(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as child:
            deadline = time.monotonic() + 30
            while not _answers(f"{host}:{port}"):
                assert child.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, "the registry does not answer"
            yield f"{host}:{port}"
            child.terminate()


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"http://{address}/v2/", timeout=1)
    except urllib.error.HTTPError:
        return True
    except OSError:
        time.sleep(0.05)  # nothing tells when a port opens
        return False
    return True


@dataclass
class Fault:
    """What to do to the next `times` requests of `method` whose path holds `path`: answer, or cut the connection."""

    method: str
    path: str
    status: int  # 0: cut the connection, in the middle of the body when there is one; STALL: say nothing
    times: int
    digest: str = ""  # answer as the registry does, but with this digest in the header
    instead: str = ""  # answer as the registry does for this in place of `path`
    body: str = ""  # answer as the registry does, but in the middle of the body: cut, stall, or other (a byte)
    headers: dict[str, str] = field(default_factory=dict)  # further ones of the answer with `status`


@dataclass
class Proxy:
    """What was asked, and what is still to go wrong."""

    address: str
    faults: list[Fault] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    sent: list[tuple[str, int]] = field(default_factory=list)  # what came with a body, and its bytes
    taken: list[int] = field(default_factory=list)  # bytes read before each cut
    stalled: threading.Event = field(default_factory=threading.Event)  # something has begun to stall
    ended: threading.Event = field(default_factory=threading.Event)  # what stalls waits for it

    @property
    def blob_bytes(self) -> int:
        """Bytes of blobs that were sent."""
        return sum(size for what, size in self.sent if "/blobs/uploads/" in what)

    def forget(self) -> None:
        self.asked.clear()
        self.sent.clear()

    def next_fault(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and fault.method == method and fault.path in path:
                fault.times -= 1
                return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    """Relays one request, or does what the next fault says."""

    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.1"  # who tries TLS first understands this answer, and goes on without
    upstream: str
    proxy: Proxy

    def log_message(self, *_: object) -> None: ...

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionResetError:  # a client that hangs up between two requests
            self.close_connection = True

    def relay(self) -> None:
        self.proxy.asked.append(f"{self.command} {self.path}")
        fault = self.proxy.next_fault(self.command, self.path)
        if fault and fault.status == 0:
            if self.command in {"PATCH", "PUT"}:
                self.proxy.taken.append(len(self.rfile.read(CUT_AFTER)))
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        body = self._body()
        if body:
            self.proxy.sent.append((f"{self.command} {self.path}", len(body)))
        if fault and fault.status == STALL:
            self.proxy.stalled.set()
            self.proxy.ended.wait()
            self.close_connection = True
            return
        if fault and fault.instead:
            self.path = self.path.replace(fault.path, fault.instead)
            self._relay(body)
        elif fault and not fault.digest and not fault.body:
            self._answer(fault.status, {"Content-Type": "application/json", **fault.headers}, b'{"errors":[]}')
        else:
            self._relay(body, fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = relay

    def _relay(self, body: bytes, fault: Fault | None = None) -> None:
        connection = http.client.HTTPConnection(self.upstream, timeout=60)
        # Accept stands there several times, and each line counts.
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in {"transfer-encoding", "content-length"}:
                connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        found = {name: value for name, value in answer.getheaders() if name.lower() != "transfer-encoding"}
        if fault and fault.digest:
            found["Docker-Content-Digest"] = fault.digest
        self._answer(answer.status, found, answer.read(), fault.body if fault else "")
        connection.close()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status: int, headers: dict[str, str], body: bytes, trouble: str = "") -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        half = len(body) // 2
        if trouble == "other":
            body = body[:half] + bytes([body[half] ^ 1]) + body[half + 1 :]
        self.wfile.write(body[:half] if trouble in {"cut", "stall"} else body)
        if trouble == "stall":
            self.wfile.flush()
            self.proxy.ended.wait()
        if trouble in {"cut", "stall"}:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def faulty_proxy(upstream: str) -> Iterator[Proxy]:
    """A proxy on loopback in front of the registry at `upstream` (host:port)."""
    proxy = Proxy("")
    handler = type("Handler", (_Handler,), {"upstream": upstream, "proxy": proxy})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    proxy.address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
