"""Fixtures of all tests, and the guard: a unit or golden test that starts a process fails."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def no_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test under tests/unit or tests/golden that starts a process, unless marked `process`."""
    kind = request.path.relative_to(ROOT / "tests").parts[0]
    if kind not in {"unit", "golden"} or request.node.get_closest_marker("process"):
        return

    def refuse(*args: Any, **_: Any) -> None:
        pytest.fail(f"a pure test started a process: {args[0] if args else ''}")

    monkeypatch.setattr(subprocess, "Popen", refuse)


@pytest.fixture
def root() -> Path:
    """The repository."""
    return ROOT
