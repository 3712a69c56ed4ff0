"""`./inv` as a user starts it, in a copy of the repository."""

import json
import os
import shutil
from pathlib import Path

import pytest

from edgebuild.run import run
from tests.conftest import ROOT

TASKS = """import json, sys
from invoke.tasks import task
@task
def show(c, text="", other=""):
    print(json.dumps([text, other]))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose only task prints its arguments, with the smallest lock that runs it."""
    folder = tmp_path_factory.mktemp("a folder with spaces")
    shutil.copy2(ROOT / "inv", folder / "inv")
    (folder / "tasks.py").write_text(TASKS)
    lock = (ROOT / "requirements.lock").read_text()
    start = lock.index("\ninvoke==") + 1
    end = lock.index("\n", lock.rindex("--hash", start, lock.index("==", start + 10)))
    (folder / "requirements.lock").write_text(lock[start : end + 1])
    return folder


AWKWARD = ["two words", "a \"quote\" and 'another'", "$HOME `id` *", "back\\slash", "-dash"]


def test_first_start_makes_the_environment_and_later_ones_reuse_it(copy: Path) -> None:
    first = run([copy / "inv", "show", "--text=1"], cwd="/")  # type: ignore[arg-type]
    assert "making .venv" in first.stderr
    assert json.loads(first.stdout) == ["1", ""]
    marker = copy / ".venv/marker"
    marker.touch()
    second = run([copy / "inv", "show"], cwd=copy)
    assert second.stderr == ""
    assert marker.exists()


@pytest.mark.parametrize("text", AWKWARD)
def test_arguments_arrive_as_given(copy: Path, text: str) -> None:
    sub = copy / "deeper"
    sub.mkdir(exist_ok=True)
    result = run(["../inv", "show", f"--text={text}", "--other", "x y"], cwd=sub)
    assert json.loads(result.stdout) == [text, "x y"]


def test_verify_takes_a_path_without_a_flag(copy: Path) -> None:
    tasks = (copy / "tasks.py").read_text()
    (copy / "tasks.py").write_text(
        tasks + '@task\ndef verify(c, path="", env=""):\n    print(json.dumps([path, env]))\n'
    )
    assert json.loads(run([copy / "inv", "verify", "a b.iso", "--env", "e"], cwd=copy).stdout) == ["a b.iso", "e"]
    assert json.loads(run([copy / "inv", "verify", "--env", "e"], cwd=copy).stdout) == ["", "e"]
    assert json.loads(run([copy / "inv", "verify"], cwd=copy).stdout) == ["", ""]


def test_another_lock_makes_it_anew(copy: Path) -> None:
    run([copy / "inv", "show"], cwd=copy)
    marker = copy / ".venv/marker"
    marker.touch()
    lock = copy / "requirements.lock"
    lock.write_text(lock.read_text() + "# changed\n")
    assert "making .venv" in run([copy / "inv", "show"], cwd=copy).stderr
    assert not marker.exists()


def test_a_wrong_hash_is_refused(copy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    shutil.copytree(copy, folder, ignore=shutil.ignore_patterns(".venv"))
    lock = folder / "requirements.lock"
    lock.write_text(lock.read_text().replace("sha256:", "sha256:0000")[:120] + "\n")
    result = run([folder / "inv", "show"], check=False)
    assert result.returncode == 3
    assert "could not be installed" in result.stderr
    assert not (folder / ".venv").exists()


def test_no_python(copy: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "cmp", "flock", "id"):
        (programs / name).symlink_to(str(shutil.which(name)))
    shutil.copytree(copy, tmp_path / "r", ignore=shutil.ignore_patterns(".venv"))
    result = run([tmp_path / "r/inv", "show"], env={"PATH": str(programs)}, check=False)
    assert result.returncode == 3
    assert "Python 3.11 or newer is not installed" in result.stderr


def test_python_without_venv_and_no_leave_to_install(copy: Path, tmp_path: Path) -> None:
    """As Debian's python3 alone: the module is there, its installer is not."""
    programs = tmp_path / "bin"
    programs.mkdir()
    python = programs / "python3"
    python.write_text(f'#!/bin/sh\ncase "$*" in *ensurepip*) exit 1 ;; esac\nexec {shutil.which("python3")} "$@"\n')
    python.chmod(0o755)
    shutil.copytree(copy, tmp_path / "r", ignore=shutil.ignore_patterns(".venv"))
    path = f"{programs}:{os.environ['PATH']}"
    result = run([tmp_path / "r/inv", "show"], env={"PATH": path, "EDGEBUILD_ENGINE": "never"}, check=False)
    assert result.returncode == 3
    assert "python3-venv is not installed" in result.stderr
    assert (
        "type, as root: apt-get update && apt-get install --yes --no-install-recommends python3-venv" in result.stderr
    )
