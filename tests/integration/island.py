"""An engine in a network of its own, from which nothing but one address of this machine can be reached."""

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgebuild.run import Result, process, run
from tests.conftest import Workspace

MAINLAND, ISLAND, CONTAINERS = "10.231.7.1", "10.231.7.2", "10.231.8.1/24"
LINK = "ebmirror0"


@dataclass(frozen=True)
class Island:
    """A dockerd, and the process whose network it has."""

    folder: Path
    pid: int

    @property
    def env(self) -> dict[str, str]:
        return {"DOCKER_HOST": f"unix://{self.folder}/docker.sock"}

    def call(self, workspace: Workspace, *arguments: str, check: bool = True) -> Result:
        """`./inv ARGUMENTS` in this network."""
        argv = ["nsenter", f"--net=/proc/{self.pid}/ns/net", sys.executable, "-m", "invoke"]
        argv += ["--search-root", str(workspace.root), *arguments]
        result = run(argv, cwd=workspace.root, env=self.env, check=False)
        assert "Traceback" not in result.stderr, result.stderr
        assert not check or result.returncode == 0, result.stdout + result.stderr
        return result


@contextlib.contextmanager
def mainland() -> Iterator[str]:
    """The one address that an island reaches; it is there as long as the block lasts."""
    run(["ip", "link", "add", LINK, "type", "veth", "peer", "name", f"{LINK}i"])
    try:
        run(["ip", "address", "add", f"{MAINLAND}/24", "dev", LINK])
        run(["ip", "link", "set", LINK, "up"])
        yield MAINLAND
    finally:
        run(["ip", "link", "del", LINK], check=False)  # gone already when its island is


@contextlib.contextmanager
def island(registry: str) -> Iterator[Island]:
    """An engine that pulls from `registry` on the mainland without TLS. The kernel ends it with us."""
    folder = Path(tempfile.mkdtemp(prefix="eb"))  # the path of a socket may have 104 characters
    dockerd = f"dockerd --host unix://{folder}/docker.sock --iptables=false --storage-driver overlay2"
    dockerd += f" --bip {CONTAINERS} --insecure-registry {registry} --insecure-registry {MAINLAND}/32"
    dockerd += f" --data-root {folder}/data --exec-root {folder}/exec --pidfile {folder}/pid"
    script = f"read -r line; {dockerd} > {folder}/log 2>&1"
    argv = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script]
    try:
        with process(argv, stdin=subprocess.PIPE, text=True) as parent:
            assert parent.stdin
            pid = _child(parent.pid)
            run(["ip", "link", "set", f"{LINK}i", "netns", str(pid)])
            inside = ["nsenter", f"--net=/proc/{pid}/ns/net", "ip"]
            run([*inside, "link", "set", "lo", "up"])
            run([*inside, "address", "add", f"{ISLAND}/24", "dev", f"{LINK}i"])
            run([*inside, "link", "set", f"{LINK}i", "up"])
            run(["ip", "route", "add", CONTAINERS.replace(".1/", ".0/"), "via", ISLAND])
            parent.stdin.write("start\n")
            parent.stdin.flush()
            found = Island(folder, pid)
            deadline = time.monotonic() + 60
            while run(["docker", "version"], env=found.env, check=False).returncode:
                assert time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
                time.sleep(0.2)  # dockerd tells nobody when it is ready
            yield found
            parent.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _child(pid: int) -> int:
    """The first process in the namespaces."""
    deadline = time.monotonic() + 10
    while not (children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        assert time.monotonic() < deadline
        time.sleep(0.01)  # nothing tells of a fork
    # setpriv and unshare replace themselves: the child is the shell.
    return int(children[0])
