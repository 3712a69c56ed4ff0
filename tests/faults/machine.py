"""Parts of a machine that may break: small disks, and an engine of our own. All end with whoever started them."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgebuild.run import process, run

FILLER = ".filler"
START_SECONDS = 60


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """An ext4 of its own at `folder`; it takes no space before it is written to."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="edgebuild-disk-") as temporary:
        image = Path(temporary) / "disk"
        run(["truncate", "--size", size, image])
        run(["mkfs.ext4", "-q", "-m", "0", image])
        run(["mount", "-o", "loop", image, folder])  # the kernel frees the loop device with the mount
        try:
            yield folder
        finally:
            run(["umount", "--lazy", folder])


def fill(disk: Path, *, leave: int = 0) -> None:
    """Take all free space of a disk, but for so many bytes."""
    free = shutil.disk_usage(disk).free - leave
    with (disk / FILLER).open("wb") as file, contextlib.suppress(OSError):
        for size in (free, free - 2**20, free - 2**24):  # the file system needs some for the file itself
            os.posix_fallocate(file.fileno(), 0, size)
            break


def empty(disk: Path) -> None:
    """Give back what `fill` took."""
    (disk / FILLER).unlink(missing_ok=True)


@dataclass
class Engine:
    """A dockerd in namespaces of its own, to be killed and started again. `init` is the first process there."""

    folder: Path
    init: subprocess.Popen[str]

    @property
    def env(self) -> dict[str, str]:
        return {"DOCKER_HOST": f"unix://{self.folder}/docker.sock"}

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def start(self) -> None:
        """Start dockerd, and return when it answers."""
        assert self.init.stdin
        self.init.stdin.write("start\n")
        self.init.stdin.flush()
        deadline = time.monotonic() + START_SECONDS
        while run(["docker", "version"], env=self.env, check=False).returncode:
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.2)  # dockerd tells nobody when it is ready

    def kill(self) -> None:
        """SIGKILL for dockerd alone; what it has started lives on, as on any machine."""
        for child in Path(f"/proc/{self.init.pid}/task/{self.init.pid}/children").read_text().split():
            below = Path(f"/proc/{child}/task/{child}/children").read_text().split()
            for pid in below:
                if Path(f"/proc/{pid}/comm").read_text().strip() == "dockerd":
                    os.kill(int(pid), signal.SIGKILL)


@contextlib.contextmanager
def own_engine(size: str) -> Iterator[Engine]:
    """An engine whose data lie on a small disk of their own. When we end, by whatever, the kernel ends all of it."""
    folder = Path(tempfile.mkdtemp(prefix="eb"))  # the path of a socket may have 104 characters
    dockerd = f"dockerd --host unix://{folder}/docker.sock --iptables=false --storage-driver overlay2"
    dockerd += f" --data-root {folder}/data --exec-root {folder}/exec --pidfile {folder}/pid"
    # In a network of its own: a second dockerd would take the bridge of the first.
    script = f"while read -r line; do rm -f {folder}/pid; {dockerd} >> {folder}/log 2>&1 & done"
    argv = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script]
    try:
        with small_disk(folder / "data", size), process(argv, stdin=subprocess.PIPE, text=True) as init:
            engine = Engine(folder, init)
            engine.start()
            yield engine
            init.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
