"""This process killed or interrupted, at points spread over a whole run."""

import re
import signal
import subprocess
import time

from tests.conftest import Workspace
from tests.faults.suite import BUILD, ENVIRONMENT, Suite, call, commands, killed_after, shown

POINTS = 20
LABEL = "edgebuild.fault"  # of the images that are made here


def change(workspace: Workspace, number: int) -> tuple[str, ...]:
    """Another user, another file on the ISO, and another layer in provider images: the next run has to do it all."""
    file = workspace.root / "Dockerfile.j2"
    provider = "FROM base-image AS {{ image.name }}\n"
    own = f"LABEL {LABEL}={number}\nRUN head -c 65536 /dev/urandom > /fault # {number}\n"
    earlier = re.compile(rf"{re.escape(provider)}(LABEL {LABEL}=.*\nRUN .*\n)?")
    file.write_text(earlier.sub(lambda _: provider + own, file.read_text()))
    workspace.write("overlay/files-iso/fault", f"{number}\n")
    return (*BUILD, "--set", f"user.name=user{number}")


def kills(suite: Suite, workspace: Workspace, points: int = POINTS) -> None:
    """SIGKILL and SIGINT, each at as many points of a run as asked, evenly spread."""
    numbers = iter(range(1000))
    workspace.call(*change(workspace, next(numbers)))
    started = time.monotonic()
    workspace.call(*change(workspace, next(numbers)))
    length = time.monotonic() - started
    print(f"a run takes {length:.1f} s")
    for kind in (signal.SIGKILL, signal.SIGINT):
        for point in range(points):
            after = length * (point + 0.5) / points
            arguments = change(workspace, next(numbers))

            def provoke(after: float = after, kind: signal.Signals = kind, argv: tuple[str, ...] = arguments) -> str:
                result = killed_after(workspace, after, kind, *argv)
                last = (result.stderr.strip().splitlines() or ["nothing said yet"])[-1]
                if result.returncode == 0:
                    return "was done already"
                # Before a task can answer it, SIGINT just ends the start.
                codes = (-signal.SIGKILL,) if kind == signal.SIGKILL else (130, -signal.SIGINT)
                assert result.returncode in codes, result
                return f"killed at: {shown(last)}" if kind == signal.SIGKILL else last

            suite.case(f"{kind.name} after {after:.1f} of {length:.1f} s", provoke, workspace, plain=arguments)


def kill_when_it_runs(child: subprocess.Popen[str]) -> None:
    """Kill as soon as QEMU is there."""
    while not commands("qemu-system-x86_64 -machine"):
        time.sleep(0.1)  # nobody tells when a container's program starts
    child.kill()


def kill_in_boot(suite: Suite, workspace: Workspace) -> None:
    """QEMU would run for ever."""

    def provoke() -> str:
        asked = ("boot", "--env", ENVIRONMENT, "--firmware", "bios")
        result = call(workspace, *asked, when={"booting by": kill_when_it_runs})
        assert result.returncode == -9, result.stderr
        return "killed at: booting by bios from cd"

    suite.case("SIGKILL while the ISO boots in QEMU", provoke, workspace)
