"""The boot check: the ISO in QEMU, in a container without network, until its user has logged in."""

import codecs
import contextlib
import json
import os
import selectors
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgebuild.console import Console
from edgebuild.container import container_argv
from edgebuild.errors import ToolError, VerificationError
from edgebuild.run import process, run
from edgebuild.secrets import guarded

Firmware = Literal["bios", "uefi"]
Media = Literal["cd", "usb"]
TAIL_LINES = 20
STOP_CHECK_SECONDS = 0.5
ORPHAN_SECONDS = 120  # that a boot may go on when nobody waits for it any more
QEMU_FOLDER = ".qemu-"  # results.py removes what a killed run leaves of it


@dataclass(frozen=True, kw_only=True)
class BootRequest:
    """One boot. `image` has QEMU; `log` and `screenshot` are written; `stop` ends it; `timeout` is in seconds."""

    iso: Path
    arch: str
    firmware: Firmware
    media: Media
    image: str
    log: Path
    screenshot: Path
    user: str
    password: str
    stop: threading.Event
    timeout: float = 900
    memory_mb: int = 2048


@dataclass(frozen=True)
class BootResult:
    """A boot that reached a shell; `accelerator` is kvm or tcg (emulation)."""

    firmware: Firmware
    media: Media
    seconds: float
    accelerator: str


def qemu_argv(request: BootRequest, *, kvm: bool) -> list[str]:
    """QEMU's arguments inside the container: serial console on standard input and output, QMP on a socket."""
    argv = ["qemu-system-x86_64", "-machine", "q35", "-m", str(request.memory_mb), "-smp", "2", "-no-reboot"]
    argv += ["-accel", "kvm", "-cpu", "host"] if kvm else ["-accel", "tcg,thread=multi", "-cpu", "max"]
    argv += ["-display", "none", "-vga", "std", "-nic", "none", "-serial", "stdio"]
    argv += ["-qmp", "unix:/run/boot/qmp,server=on,wait=off"]
    if request.firmware == "uefi":
        argv += ["-bios", "/usr/share/ovmf/OVMF.fd"]
    argv += ["-drive", "if=none,id=medium,format=raw,readonly=on,file=/installer.iso"]
    if request.media == "cd":
        return [*argv, "-device", "virtio-scsi-pci", "-device", "scsi-cd,drive=medium,bootindex=0"]
    return [*argv, "-device", "qemu-xhci", "-device", "usb-storage,drive=medium,bootindex=0,removable=on"]


def docker_argv(request: BootRequest, name: str, folder: Path, *, kvm: bool) -> list[str]:
    """The container around QEMU."""
    options = ["--interactive"]
    if kvm:
        options += ["--device", "/dev/kvm", "--group-add", str(Path("/dev/kvm").stat().st_gid)]
    limit = ["timeout", "--foreground", "--kill-after=10", f"{request.timeout + ORPHAN_SECONDS:.0f}"]
    return container_argv(
        request.image,
        [*limit, *qemu_argv(request, kvm=kvm)],
        name=name,
        read={"/installer.iso": request.iso},
        write={"/run/boot": folder},
        options=options,
    )


def boot_iso(request: BootRequest, *, say: Callable[[str], None]) -> BootResult:
    """Boot, log in, take a screenshot. Raises VerificationError with the console's last lines."""
    if request.arch != "amd64":
        raise ToolError(f"the boot check is for amd64; this ISO is for {request.arch}")
    started = time.monotonic()
    kvm = os.access("/dev/kvm", os.R_OK | os.W_OK)
    console, code = _boot_once(request, kvm=kvm)
    if kvm and code and console.state == "booting" and not request.stop.is_set():
        # Some virtual machines offer a /dev/kvm that QEMU cannot use.
        say(f"{request.firmware}, {request.media}: KVM is there but does not work; booting in emulation")
        kvm, started = False, time.monotonic()
        console, code = _boot_once(request, kvm=False)
    seconds = time.monotonic() - started
    if console.state != "done":
        raise VerificationError(_problem(request, console, seconds))
    return BootResult(request.firmware, request.media, seconds, "kvm" if kvm else "tcg")


def _boot_once(request: BootRequest, *, kvm: bool) -> tuple[Console, int]:
    """The console where it stands at the end, and QEMU's exit code."""
    name = f"edgebuild-boot-{uuid.uuid4().hex[:12]}"
    console = Console(request.user, request.password)
    deadline = time.monotonic() + request.timeout
    request.log.parent.mkdir(parents=True, exist_ok=True)
    request.log.touch(mode=0o600)
    with tempfile.TemporaryDirectory(prefix=QEMU_FOLDER, dir=request.log.parent) as temporary:
        folder = Path(temporary)
        pipes: dict[str, Any] = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "bufsize": 0,
        }
        try:
            with (
                request.log.open("w", encoding="utf-8", newline="") as file,
                process(docker_argv(request, name, folder, kvm=kvm), **pipes) as qemu,
            ):
                log, decoder = guarded(file), codecs.getincrementaldecoder("utf-8")("replace")
                for data in _output(qemu, deadline, request.stop):
                    log.write(decoder.decode(data))
                    if answer := console.feed(data):
                        qemu.stdin.write(answer.encode())  # type: ignore[union-attr]
                    if console.state in {"done", "failed"}:
                        break
                log.flush()
                _finish(folder, request.screenshot, qemu)
                run(["docker", "kill", name], check=False)  # whatever QMP did not reach
        finally:
            run(["docker", "rm", "--force", name], check=False)
    return console, qemu.returncode


def _output(child: subprocess.Popen[Any], deadline: float, stop: threading.Event) -> Iterator[bytes]:
    """What the child prints, until it ends, is to stop, or the deadline (monotonic seconds) has passed."""
    assert child.stdout  # noqa: S101 - a pipe was asked for
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while not stop.is_set() and (left := deadline - time.monotonic()) > 0:
            if selector.select(min(left, STOP_CHECK_SECONDS)):
                data = os.read(child.stdout.fileno(), 1 << 16)
                if not data:
                    return
                yield data


def _finish(folder: Path, screenshot: Path, qemu: subprocess.Popen[Any]) -> None:
    """Screenshot and end through QMP; a QEMU that is gone already has none."""
    if qemu.poll() is not None:
        return
    with contextlib.suppress(OSError), _opened(folder) as descriptor, socket.socket(socket.AF_UNIX) as control:
        control.settimeout(30)
        control.connect(f"/proc/self/fd/{descriptor}/qmp")  # the path of a socket may have 104 characters only
        lines = control.makefile("r", encoding="utf-8")
        lines.readline()
        for command in (
            {"execute": "qmp_capabilities"},
            {"execute": "screendump", "arguments": {"filename": "/run/boot/screen.png", "format": "png"}},
            {"execute": "quit"},
        ):
            control.sendall(json.dumps(command).encode())
            while "return" not in (answer := json.loads(lines.readline() or '{"return": 0}')):
                if "error" in answer:
                    break
    with contextlib.suppress(FileNotFoundError):
        shutil.copyfile(folder / "screen.png", screenshot)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_PATH)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _problem(request: BootRequest, console: Console, seconds: float) -> str:
    reason = console.problem or (
        f"no login after {seconds:.0f} s" if seconds >= request.timeout else "QEMU ended before the login"
    )
    text = request.log.read_text(encoding="utf-8", errors="replace")
    tail = "\n".join(f"    {line}" for line in text.splitlines()[-TAIL_LINES:])
    return (
        f"the ISO does not boot ({request.firmware}, {request.media}): {reason}\n{tail}\n"
        f"  console: {request.log}\n  screen:  {request.screenshot}"
    )
