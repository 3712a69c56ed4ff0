"""Checks of the repository. `nox -s validate` is the gate before a release; `./inv test` runs everything.

All sessions use the virtual environment that they are started from: `./inv` makes it from requirements.lock.
"""

import os
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "none"

ROOT = Path(__file__).parent
SHELL_SCRIPTS = ("inv", ".ci/run", "tests/upstream/files/luet", "tests/upstream/files/stand-in")


def run(session: nox.Session, *argv: str) -> None:
    """A program of this virtual environment."""
    session.run(str(Path(sys.executable).parent / argv[0]), *argv[1:], external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format of the code."""
    run(session, "ruff", "check")
    run(session, "ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check types."""
    run(session, "mypy")


@nox.session
def validate(session: nox.Session) -> None:
    """The gate before a release: environments, templates, generated files, scripts, Dockerfiles. Needs no engine."""
    session.run(sys.executable, "-m", "edgebuild.validate", external=True)
    run(session, "shellcheck", *SHELL_SCRIPTS)
    dockerfiles = sorted((ROOT / "build/.validate").glob("*/Dockerfile"))
    run(session, "hadolint", "--no-color", *map(str, dockerfiles))
    shutil.rmtree(ROOT / "build/.validate")


@nox.session
def tests(session: nox.Session) -> None:
    """Run unit, golden, integration and boot tests; arguments go to pytest."""
    run(session, "pytest", *(session.posargs or ["tests"]))


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure ratios against plain tools, as a table."""
    session.run(sys.executable, "-m", "tests.bench", *session.posargs, external=True)


@nox.session(default=False)
def faults(session: nox.Session) -> None:
    """Kill, fill, cut, stall and damage what a build stands on, as a table. Needs root; arguments are parts of it."""
    session.run(sys.executable, "-m", "tests.faults", *session.posargs, external=True)


@nox.session(default=False)
def golden(session: nox.Session) -> None:
    """Write the golden files anew; git shows what changed."""
    run(session, "pytest", "-q", "tests/golden", "--update-golden")


@nox.session(default=False)
def lock(session: nox.Session) -> None:
    """Resolve requirements.in to requirements.lock, with hashes and without an index address. Needs uv."""
    if not shutil.which("uv"):
        session.error("uv is not installed: pip install uv")
    options = "--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links"
    arguments = [*options.split(), "--no-header", "--no-annotate", "--upgrade"]
    session.run("uv", "pip", "compile", *arguments, "requirements.in", "-o", "requirements.lock", external=True)


if __name__ == "__main__":
    os.chdir(ROOT)
    nox.main()
