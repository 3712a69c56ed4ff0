"""What this machine needs to build: probes with effects below, judgement without above. It changes nothing."""

import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from edgebuild import engine as engines
from edgebuild.errors import EdgebuildError
from edgebuild.run import run

Status = Literal["ok", "warning", "error"]
CPUS = 4
MEMORY_BYTES = 8 * 10**9
CLOCK_SECONDS = 300
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Check:
    """One line of the report; `remedy` says what to do when `status` is not ok."""

    name: str
    status: Status
    detail: str
    remedy: str = ""


def format_check(check: Check) -> str:
    """`ok       memory        16.8 GB`, with the remedy behind what is not ok."""
    remedy = f" -> {check.remedy}" if check.remedy and check.status != "ok" else ""
    return f"{check.status:<8} {check.name:<22} {check.detail}{remedy}"


def judge_architecture(machine: str, wanted: str) -> Check:
    """The images' architecture must be this machine's; the guide asks for amd64."""
    own = ARCHITECTURES.get(machine, machine)
    if own == wanted:
        return Check("architecture", "ok", own)
    return Check(
        "architecture",
        "warning",
        f"{own}, images are for {wanted}",
        "register emulation (binfmt), or use another machine",
    )


def judge_amount(name: str, have: float, need: float, unit: str, *, status: Status, remedy: str) -> Check:
    """An amount that must be reached; `status` is what too little means."""
    detail = f"{have:.0f} {unit}, {need:.0f} {unit} wanted"
    return Check(name, "ok" if have >= need else status, detail, remedy)


def judge_clock(here: datetime, engine: datetime | None, last_commit: datetime | None) -> Check:
    """A wrong clock breaks TLS and package signatures. Times are aware."""
    if last_commit and here < last_commit:
        return Check(
            "clock", "error", f"{here:%Y-%m-%d %H:%M} is before the last commit", "set the clock: timedatectl"
        )
    if engine and abs((here - engine).total_seconds()) > CLOCK_SECONDS:
        return Check(
            "clock", "warning", "this machine and the engine differ by minutes", "set both clocks: timedatectl"
        )
    return Check("clock", "ok", f"{here:%Y-%m-%d %H:%M} UTC")


def judge_proxy(environ: Mapping[str, str], configured: bool) -> Check:
    """A proxy in the shell does not reach the build by itself."""
    names = sorted(name for name in environ if name.lower() in {"http_proxy", "https_proxy"} and environ[name])
    if not names:
        return Check("proxy", "ok", "none" if not configured else "in the configuration")
    if configured:
        return Check("proxy", "ok", f"{', '.join(names)}, and in the configuration")
    return Check(
        "proxy", "warning", f"{', '.join(names)} set here, not for the build", "set proxy.http and proxy.https"
    )


def judge_login(host: str, docker_config: Mapping[str, Any]) -> Check:
    """Whether Docker knows how to log in to the registry that images are pushed to."""
    if host == "ttl.sh":
        return Check("registry login", "ok", "ttl.sh needs none")
    names = {host, f"https://{host}"}
    if host == "docker.io":
        names |= {"https://index.docker.io/v1/", "index.docker.io"}
    known = {*docker_config.get("auths", {}), *docker_config.get("credHelpers", {})}
    if names & known or docker_config.get("credsStore"):
        return Check("registry login", "ok", host)
    command = "docker login" if host == "docker.io" else f"docker login {host}"
    return Check("registry login", "warning", f"no login for {host}", f"{command}, when the registry wants one")


def checks(
    root: Path,
    *,
    arch: str,
    registry_host: str,
    needed_bytes: int,
    proxy_configured: bool,
    environ: Mapping[str, str],
    image: str,
) -> Iterator[Check]:
    """All checks, in order, each as soon as it is known. `image` is a local one to try privileges with."""
    yield judge_architecture(platform.machine(), arch)
    yield judge_amount("CPUs", os.cpu_count() or 1, CPUS, "CPUs", status="warning", remedy="builds take longer")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 10**9
    yield judge_amount(
        "memory",
        memory,
        MEMORY_BYTES / 10**9,
        "GB",
        status="warning",
        remedy="close other programs, or use a bigger machine",
    )
    git = run(["git", "--version"], check=False) if shutil.which("git") else None
    yield Check(
        "git", "ok" if git else "warning", git.stdout.strip() if git else "not installed", "apt-get install git"
    )
    yield from _engine_checks(root, needed_bytes, image)
    yield judge_login(registry_host, _docker_config(environ))
    yield judge_proxy(environ, proxy_configured)


def _engine_checks(root: Path, needed_bytes: int, image: str) -> Iterator[Check]:
    last = (
        run(["git", "log", "-1", "--format=%cI"], cwd=root, check=False).stdout.strip() if shutil.which("git") else ""
    )
    committed = datetime.fromisoformat(last) if last else None
    try:
        engine, problem = engines.probe()
    except EdgebuildError as error:
        engine, problem = None, error.message
    disk = root
    if engine is None:
        yield Check("Docker Engine", "error", problem, "a build starts or installs it: ./inv build-all-images")
        yield judge_clock(datetime.now(UTC), None, committed)
    else:
        trouble = engines.check_versions(engine.version, engine.buildx)
        yield Check("Docker Engine", "error" if "Engine" in trouble else "ok", engine.version, "update Docker")
        buildx_bad = "buildx" in trouble
        yield Check(
            "buildx", "error" if buildx_bad else "ok", trouble if buildx_bad else engine.buildx, "install buildx"
        )
        info = json.loads(run(["docker", "info", "--format", "{{json .}}"]).stdout)
        if Path(info["DockerRootDir"]).exists():
            disk = Path(info["DockerRootDir"])
        yield judge_privileged(info, _try_privileged(image))
        yield judge_clock(datetime.now(UTC), _engine_time(info), committed)
    free = shutil.disk_usage(disk).free / 10**9
    yield judge_amount(
        "disk", free, needed_bytes / 10**9, "GB", status="error", remedy=f"free space below {disk}: docker system df"
    )


def _engine_time(info: Mapping[str, Any]) -> datetime | None:
    text = str(info.get("SystemTime", ""))[:19]
    return datetime.fromisoformat(text).replace(tzinfo=UTC) if text else None


def _try_privileged(image: str) -> bool | None:
    """Whether a privileged container runs; None when there is no local image to try it with."""
    if run(["docker", "image", "inspect", image], check=False).returncode:
        return None
    argv = ["docker", "run", "--rm", "--privileged", "--network", "none", "--pull", "never", image, "true"]
    return run(argv, check=False).returncode == 0


def judge_privileged(info: Mapping[str, Any], tried: bool | None) -> Check:
    """edgebuild itself needs none; emulation of other architectures does."""
    if tried is False:
        return Check("privileged containers", "warning", "refused", "only needed to register emulation")
    rootless = any("rootless" in option for option in info.get("SecurityOptions") or [])
    detail = "rootless engine" if rootless else "run" if tried else "not tried before the first build"
    return Check("privileged containers", "ok", detail + "; no build step needs them")


def _docker_config(environ: Mapping[str, str]) -> dict[str, Any]:
    folder = Path(environ["DOCKER_CONFIG"]) if environ.get("DOCKER_CONFIG") else Path.home() / ".docker"
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def report(found: Iterator[Check], say: Callable[[str], None]) -> int:
    """Print each check as it comes; the number of errors."""
    errors = 0
    for check in found:
        say(format_check(check))
        errors += check.status == "error"
    return errors
