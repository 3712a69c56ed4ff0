"""Engines of our own, each in a network of its own, as if they were other machines. Needs root."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from edgebuild.run import process, run

START_SECONDS = 60
PORT = 2375


@contextlib.contextmanager
def engines(count: int) -> Iterator[list[str]]:
    """So many engines; yields their addresses (tcp://...). All of it is gone afterwards."""
    with contextlib.ExitStack() as stack:
        networks = [stack.enter_context(_network(number)) for number in range(count)]
        yield [stack.enter_context(_engine(name, address)) for name, address in networks]


@contextlib.contextmanager
def _network(number: int) -> Iterator[tuple[str, str]]:
    """A network namespace that only this machine reaches: its name, and its address."""
    name, net = f"edgebench{os.getpid()}-{number}", f"10.{200 + number}.{os.getpid() % 250}"
    outside = f"eb{os.getpid()}-{number}"  # 15 characters at most
    run(["ip", "netns", "add", name])
    try:
        run(["ip", "link", "add", outside, "type", "veth", "peer", "name", "inside", "netns", name])
        run(["ip", "addr", "add", f"{net}.1/24", "dev", outside])
        run(["ip", "link", "set", outside, "up"])
        run(["ip", "-n", name, "addr", "add", f"{net}.2/24", "dev", "inside"])
        run(["ip", "-n", name, "link", "set", "inside", "up"])
        run(["ip", "-n", name, "link", "set", "lo", "up"])
        yield name, f"{net}.2"
    finally:
        run(["ip", "netns", "del", name], check=False)
        run(["ip", "link", "del", outside], check=False)


@contextlib.contextmanager
def _engine(network: str, address: str) -> Iterator[str]:
    """A dockerd that listens there."""
    folder = Path(tempfile.mkdtemp(prefix="eb"))  # the path of a socket may have 104 characters
    host = f"tcp://{address}:{PORT}"
    # Not `ip netns exec`: it hides the cgroups.
    argv = ["nsenter", f"--net=/run/netns/{network}", "dockerd", "--host", host, "--tls=false", "--bridge", "none"]
    argv += ["--iptables=false", "--storage-driver", "overlay2", "--data-root", f"{folder}/data"]
    argv += ["--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid"]
    try:
        with (
            (folder / "log").open("wb") as log,
            process(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as child,
        ):
            deadline = time.monotonic() + START_SECONDS
            while run(["docker", "version"], env={"DOCKER_HOST": host}, check=False).returncode:
                assert child.poll() is None, (folder / "log").read_text()[-2000:]
                assert time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
                time.sleep(0.2)  # dockerd tells nobody when it is ready
            yield host
            child.terminate()
    finally:
        run(["sh", "-c", f"grep -o '{folder}[^ ]*' /proc/mounts | sort -r | xargs -r umount -l"], check=False)
        shutil.rmtree(folder, ignore_errors=True)
