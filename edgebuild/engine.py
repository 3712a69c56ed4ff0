"""The engine: found, started or installed; Docker's own configuration says where it is."""

import contextlib
import ipaddress
import json
import os
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edgebuild.errors import ToolError
from edgebuild.host import Consent, as_root, install_argv, mirror_of, read_os_release, read_sources, run_as_root
from edgebuild.run import run, spawn

MIN_ENGINE = (23, 0)
MIN_BUILDX = (0, 13)
START_SECONDS = 60
NEWER_SUITE = "trixie"  # Debian 12 has no buildx; Debian 13's package runs there
DOCKER_PACKAGES = ("docker.io", "docker-cli", "docker-buildx")
RUNTIME_PACKAGES = ("containerd", "runc", "iptables")


@dataclass(frozen=True)
class Engine:
    """An engine that answers. Versions are as it tells them; `endpoint` is where it listens.

    `folder` is where it stores everything; `processors` and `memory`, in bytes, are what its machine has.
    """

    version: str
    buildx: str
    endpoint: str
    folder: Path = Path("/var/lib/docker")
    processors: int = 1
    memory: int = 0


def version_tuple(text: str) -> tuple[int, int]:
    """`26.1.5+dfsg1` as (26, 1); what has no number is (0, 0)."""
    numbers = "".join(character if character.isdigit() else " " for character in text).split()
    return (int(numbers[0]), int(numbers[1])) if len(numbers) > 1 else (0, 0)


def check_versions(engine: str, buildx: str) -> str:
    """What is wrong with these versions; empty when nothing is."""
    if version_tuple(engine) < MIN_ENGINE:
        return f"Docker Engine {engine} is too old; 23.0 or newer is needed"
    if not buildx:
        return "docker has no buildx plugin"
    if version_tuple(buildx) < MIN_BUILDX:
        return f"buildx {buildx} is too old; 0.13 or newer is needed"
    return ""


def probe() -> tuple[Engine | None, str]:
    """The engine, or why there is none. Nothing is started."""
    if not shutil.which("docker"):
        return None, "docker is not installed"
    # One call for all: `docker buildx version` alone takes twice as long.
    with ThreadPoolExecutor(max_workers=1) as pool:
        where = pool.submit(endpoint)
        result = run(["docker", "info", "--format", "{{json .}}"], check=False, timeout=60)
    try:
        told = json.loads(result.stdout)
    except json.JSONDecodeError:
        told = {}
    if not told.get("ServerVersion"):
        said = told.get("ServerErrors") or result.stderr.strip().splitlines() or ["the engine does not answer"]
        return None, str(said[-1])
    plugins = (told.get("ClientInfo") or {}).get("Plugins") or []
    buildx = next((str(each.get("Version") or "") for each in plugins if each.get("Name") == "buildx"), "")
    has = Path(told["DockerRootDir"]), int(told["NCPU"]), int(told["MemTotal"])
    return Engine(str(told["ServerVersion"]), buildx, where.result(), *has), ""


def endpoint() -> str:
    """Where the docker client looks: DOCKER_HOST, or the current context's."""
    result = run(["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"], check=False)
    return os.environ.get("DOCKER_HOST") or result.stdout.strip() or "unix:///var/run/docker.sock"


def ensure_engine(root: Path, consent: Consent, found: tuple[Engine | None, str] | None = None) -> Engine:
    """An engine with buildx; started or installed with consent. Raises ToolError with the commands to type.

    `found` is what `probe` has told just now.
    """
    engine, problem = found or probe()
    if engine is None:
        if "permission denied" in problem.lower():
            raise ToolError(
                f"no permission on the Docker socket: {problem}",
                hint='sudo usermod -aG docker "$USER", then log in again',
            )
        if consent.environ.get("DOCKER_HOST"):
            raise ToolError(f"no engine at DOCKER_HOST={consent.environ['DOCKER_HOST']}: {problem}")
        if not shutil.which("dockerd"):
            _install(consent, problem)
        else:
            consent.obtain("Start it", [["dockerd"]], problem=f"the engine is not running ({problem})")
        engine = _start(root, consent)
    if not engine.buildx:
        _install(consent, "docker has no buildx plugin")
        engine = _start(root, consent)
    if trouble := check_versions(engine.version, engine.buildx):
        raise ToolError(trouble, hint="update Docker: https://docs.docker.com/engine/install/")
    return engine


def install_commands(os_release: Mapping[str, str], sources: Any) -> list[list[str]]:
    """What installs the engine here, as commands to run or to type as root."""
    if os_release.get("ID") == "debian" and os_release.get("VERSION_ID") == "12":
        own = mirror_of(sources, os_release.get("VERSION_CODENAME", "bookworm"))
        if own is None:
            raise ToolError("apt's sources name no Debian archive", hint="install Docker Engine 23 with buildx 0.13")
        signed = f"Signed-By: {own.signed_by}\\n" if own.signed_by else ""
        stanza = f"Types: deb\\nURIs: {own.uri}\\nSuites: {NEWER_SUITE}\\nComponents: main\\n{signed}"
        pin = f"Package: *\\nPin: release n={NEWER_SUITE}\\nPin-Priority: 100\\n"
        newer = [f"{package}/{NEWER_SUITE}" for package in DOCKER_PACKAGES]
        return [
            ["sh", "-c", f"printf '{pin}' > /etc/apt/preferences.d/edgebuild-{NEWER_SUITE}"],
            ["sh", "-c", f"printf '{stanza}' > /etc/apt/sources.list.d/edgebuild-{NEWER_SUITE}.sources"],
            ["apt-get", "update"],
            install_argv([*newer, *RUNTIME_PACKAGES]),
        ]
    # Ubuntu's client is part of docker.io; Debian has it in a package of its own.
    packages = [package for package in DOCKER_PACKAGES if package != "docker-cli" or os_release.get("ID") != "ubuntu"]
    return [["apt-get", "update"], install_argv([*packages, *RUNTIME_PACKAGES])]


def _install(consent: Consent, problem: str) -> None:
    if not shutil.which("apt-get"):
        raise ToolError(problem, hint="install Docker Engine 23 or newer with buildx 0.13 or newer")
    commands = install_commands(read_os_release(), read_sources())
    consent.obtain("Install Docker from the distribution's packages", commands, problem=problem)
    run_as_root(commands, consent.say)


def _start(root: Path, consent: Consent) -> Engine:
    """Start dockerd and wait until it answers."""
    engine, _ = probe()
    if engine:
        return engine
    log = root / "build/.engine/dockerd.log"
    if Path("/run/systemd/system").is_dir():
        run_as_root([["systemctl", "start", "docker"]], consent.say)
    else:
        log.parent.mkdir(parents=True, exist_ok=True)
        consent.say(f"starting dockerd in the background, log: {log}")
        with log.open("ab") as file:
            daemon = spawn(as_root(["dockerd"]), log=file)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        engine, problem = probe()
        if engine:
            return engine
        if log.exists() and not Path("/run/systemd/system").is_dir() and daemon.poll() is not None:
            break
        time.sleep(0.2)  # dockerd tells nobody when it is ready
    tail = "\n".join(f"    {line}" for line in log.read_text().splitlines()[-10:]) if log.exists() else ""
    raise ToolError(f"the engine did not start: {problem}\n{tail}", hint="journalctl -u docker" if not tail else "")


def docker_client(timeout: int = 600) -> Any:
    """The SDK's client for the engine that the docker command uses; the SDK knows no contexts."""
    import docker

    try:
        return docker.DockerClient(base_url=endpoint(), timeout=timeout, version="auto")
    except docker.errors.DockerException as error:
        raise ToolError(f"the engine cannot be reached: {error}", hint="./inv doctor") from error


def is_insecure(host: str) -> bool:
    """Whether the engine is told to use this registry (host[:port]) without TLS, or without checking who it is."""
    import docker

    try:
        client = docker_client(timeout=30)
        with contextlib.closing(client):
            told = client.info().get("RegistryConfig") or {}
    except (ToolError, docker.errors.DockerException, OSError):
        return False
    return insecure_by(told, host)


def insecure_by(told: Mapping[str, Any], host: str) -> bool:
    """The same by what the engine tells of its registries: by name, or by the address when the name is one."""
    if not (told.get("IndexConfigs") or {}).get(host, {}).get("Secure", True):
        return True
    try:
        address = ipaddress.ip_address(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False
    return any(address in ipaddress.ip_network(each) for each in told.get("InsecureRegistryCIDRs") or [])
