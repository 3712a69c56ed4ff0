"""Several real engines on this machine, each a machine of its own to docker: other network, other store, other death.

Needs root. The benchmarks use them, too.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgebuild.engine import Engine as HostEngine
from edgebuild.images import Built, Work, build_images
from edgebuild.inputs import Inputs
from edgebuild.run import process, run
from edgebuild.session import Prepared, Session, open_session
from tests.conftest import ROOT

START_SECONDS = 60
NETWORK = "10.199"
REGISTRY_PORTS = range(15500, 15510)  # what engines may reach without TLS
CONTAINERD = {"features": {"containerd-snapshotter": True}}


@dataclass
class Engine:
    """A dockerd in namespaces of its own. `gateway` is this machine as it sees it."""

    name: str
    folder: Path
    gateway: str
    address: str
    init: subprocess.Popen[bytes]

    @property
    def host(self) -> str:
        return f"tcp://{self.address}:2375"

    @property
    def socket(self) -> Path:
        return self.folder / "docker.sock"

    def docker(self, *arguments: str) -> str:
        """The output of a docker command on this engine."""
        return run(["docker", "--host", self.host, *arguments]).stdout

    def kill(self) -> None:
        """SIGKILL for dockerd; its machine lives on, and refuses connections from now on."""
        for child in Path(f"/proc/{self.init.pid}/task/{self.init.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        with contextlib.suppress(OSError):
            while True:
                socket.create_connection((self.address, 2375), 5).close()
                time.sleep(0.02)  # the kernel tells nobody when a port is closed


@contextlib.contextmanager
def engine(name: str, settings: Mapping[str, Any] | None = None, first: int = 1) -> Iterator[Engine]:
    """A dockerd in the next free network from 10.199.FIRST.0/24 on; the kernel ends all of it with us."""
    folder = Path(tempfile.mkdtemp(prefix="eb"))  # the path of a socket may have 104 characters
    # It waits for its network: a dockerd cannot listen at an address that is not there yet.
    script = f"read -r address; exec dockerd --config-file {folder}/daemon.json --data-root {folder}/data"
    script += f" --exec-root {folder}/exec --pidfile {folder}/pid --host tcp://$address:2375 --tls=false"
    script += f" --host unix://{folder}/docker.sock --iptables=false > {folder}/log 2>&1"
    argv = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script]
    try:
        with process(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as init:
            gateway, address = _connect(init.pid, first)
            insecure = {"insecure-registries": [f"{gateway}:{port}" for port in REGISTRY_PORTS]}
            (folder / "daemon.json").write_text(json.dumps({**insecure, **(settings or {})}))
            init.stdin.write(f"{address}\n".encode())  # type: ignore[union-attr]
            init.stdin.flush()  # type: ignore[union-attr]
            made = Engine(name, folder, gateway, address, init)
            deadline = time.monotonic() + START_SECONDS
            while run(["docker", "--host", made.host, "version"], check=False).returncode:
                assert time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
                time.sleep(0.1)  # dockerd tells nobody when it is ready
            try:
                yield made
            finally:
                init.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _connect(pid: int, first: int) -> tuple[str, str]:
    """Lay a cable between this machine and the network of `pid`; the addresses of both ends."""
    deadline = time.monotonic() + START_SECONDS
    own = Path("/proc/self/ns/net").readlink()
    while Path(f"/proc/{pid}/ns/net").readlink() == own:
        assert time.monotonic() < deadline
        time.sleep(0.02)  # unshare tells nobody when it has done so
    for number in range(first, 255):  # another run of the tests may have some
        cable = ["ip", "link", "add", f"ebt{number}", "type", "veth", "peer", "name", "eth0", "netns", str(pid)]
        if run(cable, check=False).returncode == 0:
            break
    gateway, address = f"{NETWORK}.{number}.1", f"{NETWORK}.{number}.2"
    run(["ip", "address", "add", f"{gateway}/24", "dev", f"ebt{number}"])
    run(["ip", "link", "set", f"ebt{number}", "up"])
    inside = ["nsenter", f"--net=/proc/{pid}/ns/net", "ip"]
    run([*inside, "address", "add", f"{address}/24", "dev", "eth0"])
    run([*inside, "link", "set", "eth0", "up"])
    run([*inside, "link", "set", "lo", "up"])
    return gateway, address


@contextlib.contextmanager
def engines(*settings: Mapping[str, Any] | None, names: str = "abcdefgh", first: int = 1) -> Iterator[list[Engine]]:
    """An engine for each of these settings of the daemon, of these names; started side by side."""
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(len(settings)) as threads:

        def start(name: str, each: Mapping[str, Any] | None) -> Engine:
            return stack.enter_context(engine(name, each, first))

        # The threads live as long as the engines: the kernel ends a program with the thread that started it.
        yield list(threads.map(start, names[: len(settings)], settings))


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def engine_at(address: str, port: int = 2375) -> Callable[[], Awaitable[Streams]]:
    return lambda: asyncio.open_connection(address, port)


def buildkit_of(engine: Engine) -> Callable[[], Awaitable[Streams]]:
    """dockerd's own BuildKit: gRPC, behind an upgrade of HTTP."""

    async def connect() -> Streams:
        reader, writer = await asyncio.open_unix_connection(str(engine.socket))
        writer.write(b"POST /grpc HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        answer = await reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in answer, answer
        return reader, writer

    return connect


class Relay:
    """Listens, and passes everything on to another address: `change` sees what comes back.

    `gate` holds everything while it is not set. `tls` is for those who come. It runs in a thread of its own.
    """

    def __init__(
        self,
        target: Callable[[], Awaitable[Streams]],
        *,
        listen: str = "127.0.0.1",
        ports: Sequence[int] = (0,),
        change: Callable[[bytes], bytes] = lambda data: data,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.gate, self.change = threading.Event(), change
        self.gate.set()
        self._target = target
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(self._listen(listen, ports, tls))
        self.address = f"{listen}:{self._server.sockets[0].getsockname()[1]}"
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    async def _listen(self, host: str, ports: Sequence[int], tls: ssl.SSLContext | None) -> asyncio.Server:
        for port in ports[:-1]:
            with contextlib.suppress(OSError):
                return await asyncio.start_server(self._serve, host, port, ssl=tls)
        return await asyncio.start_server(self._serve, host, ports[-1], ssl=tls)

    def close(self) -> None:
        self.gate.set()
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        """Cut what is open, not cancel it: a task that is cancelled before it begins leaves its socket open."""
        for listener in self._server.sockets:
            self._loop.remove_reader(listener.fileno())
        await asyncio.sleep(0)  # a closed server would forget what came just now
        self._server.close()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for writer in self._open:
                writer.transport.abort()
            await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)

    @contextlib.contextmanager
    def _kept(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        self._open.add(writer)
        if not self._server.is_serving():  # it came while the end began
            writer.transport.abort()
        try:
            yield
        finally:
            self._open.discard(writer)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), self._kept(writer):
            far_reader, far_writer = await self._target()
            with self._kept(far_writer):
                back = asyncio.create_task(self._pass(far_reader, writer, self.change))
                await self._pass(reader, far_writer, lambda data: data)
                await back

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Callable[[bytes], bytes]
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if not self.gate.is_set():
                    await asyncio.to_thread(self.gate.wait)
                writer.write(change(data))
                await writer.drain()
        writer.close()


# What begins an executable of Linux on arm64, and which of its bits count: as QEMU's own package says it.
AARCH64 = r"\x7fELF\x02\x01\x01\x00" + r"\x00" * 8 + r"\x02\x00\xb7\x00"
BITS = r"\xff" * 7 + r"\x00" + r"\xff" * 8 + r"\xfe\xff\xff\xff"
BINFMT = Path("/proc/sys/fs/binfmt_misc")


@contextlib.contextmanager
def arm64_emulation(folder: Path) -> Iterator[None]:
    """QEMU for arm64 programs of the whole machine, engines started from now on among them."""
    folder.mkdir(parents=True, exist_ok=True)
    run(["apt-get", "-oAPT::Sandbox::User=root", "download", "qemu-user-static"], cwd=folder)
    [package] = folder.glob("qemu-user-static_*.deb")
    # The package holds all that QEMU can; what is asked for stands near its beginning.
    one = "tar --extract --occurrence=1 ./usr/bin/qemu-aarch64-static"
    run(["sh", "-c", f"dpkg-deb --fsys-tarfile {package.name} | {one}"], cwd=folder)
    mounted = (BINFMT / "register").exists()
    if not mounted:
        run(["mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT])
    name = f"edgebuild-arm64-{os.getpid()}"
    qemu = folder / "usr/bin/qemu-aarch64-static"
    # F: the kernel opens QEMU now, and needs not find it in a container.
    (BINFMT / "register").write_text(f":{name}:M::{AARCH64}:{BITS}:{qemu}:F")
    try:
        yield
    finally:
        (BINFMT / name).write_text("-1")
        if not mounted:
            run(["umount", BINFMT])
        shutil.rmtree(folder)


def busybox(folder: Path, *, arch: str = "") -> Path:
    """Debian's static busybox; of another architecture by lists of packages of its own."""
    options: list[str] = []
    if arch:
        state = folder / "apt"
        for name in ("lists/partial", "archives/partial"):
            (state / name).mkdir(parents=True, exist_ok=True)
        (state / "status").touch()
        paths = {"Dir::State::Lists": "lists", "Dir::Cache": ".", "Dir::State::Status": "status"}
        options = [f"-oAPT::Architecture={arch}", f"-oAPT::Architectures={arch}", "-oAcquire::Languages=none"]
        options += [f"-o{name}={state / path}" for name, path in paths.items()]
        run(["apt-get", *options, "update"], cwd=folder)
    run(["apt-get", *options, "-oAPT::Sandbox::User=root", "download", "busybox-static"], cwd=folder)
    [package] = folder.glob("busybox-static_*.deb")
    run(["dpkg-deb", "--extract", package, folder / "busybox-files"])
    package.unlink()
    return next(
        path for path in (folder / "busybox-files").rglob("busybox") if path.is_file() and path.parent.name == "bin"
    )


@dataclass(frozen=True)
class Lab:
    """A repository with nothing but its configuration and busybox, to build tiny images in."""

    root: Path

    def session(
        self, builders: Mapping[str, Mapping[str, Any]], targets: int, *settings: str
    ) -> tuple[Session, list[str]]:
        """A session with these builders and so many provider images; and all that it says."""
        said: list[str] = []
        versions = ",".join(f"1.30.{number}" for number in range(targets))
        own = [f"builders={json.dumps(builders)}", f"kubernetes.versions=[{versions}]"]
        opened = open_session(self.root, "demo", [*own, *settings])
        return Session(opened.root, opened.environment, opened.plan, say=said.append), said

    def build(self, session: Session, step: str, **options: Any) -> Built:
        """Build its provider images: each runs this line of the shell on top of a busybox."""
        targets = session.plan.of_kind("provider-image")
        shell = '["/busybox", "sh", "-c", {}]'
        base = [
            "FROM scratch AS base-image",
            "COPY busybox /busybox",
            f"RUN {shell.format(json.dumps('/busybox true'))}",
        ]
        lines = list(base)
        for target in targets:
            lines += [
                f"FROM base-image AS {target.name}",
                f"RUN {shell.format(json.dumps(f'{step} # {target.name}'))}",
            ]
        dockerfile = "\n".join(lines) + "\n"
        pipeline = {"context": ".", "dockerfile-inline": dockerfile, "platforms": [session.plan.platform]}
        bake = {each.name: {**pipeline, "target": each.name, "output": ["type=docker"]} for each in targets}
        prepared = Prepared(Inputs(), {"Dockerfile": dockerfile}, "", {})
        with session.results.staging() as staging:
            (staging / "inputs").mkdir()
            (staging / "inputs/docker-bake.json").write_text(json.dumps({"target": bake}))
            here = HostEngine("", "", "", processors=2)  # builds nothing, but bounds groups
            [built] = build_images([Work(session, prepared, staging, targets, here)], **options)
        return built


def make_lab(folder: Path, program: Path) -> Lab:
    """A lab in this folder, with this busybox."""
    shutil.copytree(ROOT / "config", folder / "config")
    shutil.copy(program, folder / "busybox")
    return Lab(folder)


@contextlib.contextmanager
def own_docker_config(folder: Path) -> Iterator[None]:
    """Contexts and builders of ours alone, for all that is called from here."""
    before = {name: os.environ.get(name) for name in ("DOCKER_CONFIG", "BUILDX_CONFIG")}
    plugins = Path(before["DOCKER_CONFIG"] or Path.home() / ".docker") / "cli-plugins"
    folder.mkdir(parents=True, exist_ok=True)
    if plugins.is_dir():
        (folder / "cli-plugins").symlink_to(plugins)
    os.environ |= {"DOCKER_CONFIG": str(folder), "BUILDX_CONFIG": str(folder / "buildx")}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def docker_builders(made: Sequence[Engine], **settings: Any) -> dict[str, dict[str, Any]]:
    """What `builders` says of these engines."""
    return {each.name: {"driver": "docker", "endpoint": each.host, **settings} for each in made}
