"""Fixtures of all tests, and the guard: a unit or golden test that starts a process fails."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from edgebuild.run import Result, run

ROOT = Path(__file__).parent.parent
TOKEN = "a token with 'quotes\" # and: colons"


# The same examples in every run, and none fails for a busy machine; a hang is pytest-timeout's.
hypothesis.settings.register_profile("edgebuild", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("edgebuild")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew")


@pytest.fixture(autouse=True)
def no_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test under tests/unit or tests/golden that starts a process, unless marked `process`."""
    kind = request.path.relative_to(ROOT / "tests").parts[0]
    if kind not in {"unit", "golden"} or request.node.get_closest_marker("process"):
        return

    def refuse(*args: Any, **_: Any) -> None:
        pytest.fail(f"a pure test started a process: {args[0] if args else ''}")

    monkeypatch.setattr(subprocess, "Popen", refuse)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@dataclass(frozen=True)
class Workspace:
    """A copy of the repository to build in, and how to call its tasks as a user does."""

    root: Path

    def call(self, *arguments: str, env: Mapping[str, str] | None = None, check: bool = True) -> Result:
        """`./inv ARGUMENTS`, in this interpreter's virtual environment, without a terminal."""
        clean = {name: "" for name in os.environ if name.startswith("EDGEBUILD_")}
        assert not clean, "the tests must not inherit EDGEBUILD_ variables"
        argv = [sys.executable, "-m", "invoke", "--search-root", str(self.root), *arguments]
        result = run(argv, cwd=self.root, env=env, check=False)
        assert "Traceback" not in result.stderr, result.stderr
        if check:
            assert result.returncode == 0, result.stdout + result.stderr
        return result

    def result(self, environment: str, name: str) -> Path:
        return self.root / "build" / environment / name

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file


def copy_repository(target: Path) -> Workspace:
    """The repository's own files, and the bootstrapped base when there is one already."""
    ignored = shutil.ignore_patterns("__pycache__", ".*_cache", "tests")
    for name in ("config", "edgebuild", "overlay", "certs"):
        shutil.copytree(ROOT / name, target / name, ignore=ignored, symlinks=True)
    for name in ("tasks.py", "Dockerfile.j2", "user-data.j2", ".dockerignore", "inv", "requirements.lock"):
        shutil.copy2(ROOT / name, target / name)
    cache = ROOT / "build/.cache"
    if cache.exists():
        shutil.copytree(cache, target / "build/.cache", copy_function=_link_or_copy)
    return Workspace(target)


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


@pytest.fixture(scope="session")
def engine() -> Any:
    """A real engine, started or installed as a user's first build does it."""
    from edgebuild.engine import docker_client, ensure_engine
    from edgebuild.host import Consent

    ensure_engine(ROOT, Consent(lambda line: print(line, file=sys.stderr), None, os.environ))
    client = docker_client()
    yield client
    client.close()


@pytest.fixture(scope="session")
def bootstrapped(engine: Any) -> Path:
    """base.tar: Debian 12, made once for all tests and kept in build/.cache."""
    from edgebuild.bootstrap import bootstrap_base
    from edgebuild.config import load_environment
    from edgebuild.host import Consent
    from edgebuild.render import bootstrap_folder

    demo = load_environment(ROOT, "demo", environ={})
    return bootstrap_base(
        ROOT / bootstrap_folder(demo),
        suite=demo.os.bootstrap,
        arch=demo.os.arch,
        consent=Consent(lambda line: print(line, file=sys.stderr), None, os.environ),
    )


@pytest.fixture(scope="session")
def debian_image(bootstrapped: Path) -> str:
    """A local image of Debian 12."""
    name = "edgebuild-tests/debian:12"
    run(["docker", "import", bootstrapped, name])
    return name


@pytest.fixture(scope="session")
def workspace(bootstrapped: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """One copy of the repository for all tests that build."""
    return copy_repository(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="session")
def demo(workspace: Workspace) -> Result:
    """The demo environment, built once with `build-all-images`."""
    return workspace.call("build-all-images", "--env", "demo")


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real registry on loopback, as host:port."""
    from tests.registry_server import registry_server

    with registry_server(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture(scope="session")
def upstream(registry: str, debian_image: str, workspace: Workspace) -> str:
    """The registry, holding stand-ins of every upstream image under its own name."""
    from tests.upstream import publish

    workspace.call("base-image", "--env", "demo")
    publish(ROOT, registry, debian_image=debian_image, kernel_image="edgebuild/base-image:demo")
    return registry
