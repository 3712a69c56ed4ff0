"""The date of the commit, and what stands for it."""

from pathlib import Path

import pytest

from edgebuild.commit import commit_date, dated
from edgebuild.config import load_environment
from edgebuild.errors import InputError
from edgebuild.run import run
from edgebuild.values import FIXED_EPOCH

WHEN = 1600000000


def repository(folder: Path) -> Path:
    run(["git", "init", "--quiet", folder])
    return folder


def commit(folder: Path, when: int = WHEN) -> None:
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a"}
    dates = {"GIT_AUTHOR_DATE": f"{when - 50} +0000", "GIT_COMMITTER_DATE": f"{when} +0200"}
    run(["git", "commit", "--quiet", "--allow-empty", "--message", "x"], cwd=folder, env={**who, **dates})


@pytest.mark.process
def test_the_checked_out_commit_tells_the_date(tmp_path: Path, root: Path) -> None:
    commit(repository(tmp_path))
    said: list[str] = []
    assert commit_date(tmp_path, said.append) == WHEN
    environment = load_environment(root, "demo", environ={})
    assert dated(environment, tmp_path, said.append).iso.epoch == WHEN
    assert not said


@pytest.mark.process
def test_only_what_images_are_made_of_moves_the_date(tmp_path: Path) -> None:
    """Another user-data or one more version in an environment's file must not make every image anew."""
    repository(tmp_path)
    names = ["Dockerfile.j2", "user-data.j2", "config/demo.yaml", "config/demo.lock.yaml"]
    for number, name in enumerate(names):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(name)
        run(["git", "add", "."], cwd=tmp_path)
        commit(tmp_path, WHEN + number)
        assert commit_date(tmp_path, print) == WHEN + (3 if number == 3 else 0)


@pytest.mark.process
def test_a_shallow_clone_says_that_it_does_not_know(tmp_path: Path) -> None:
    source = repository(tmp_path / "source")
    commit(source)
    commit(source, WHEN + 1)
    run(["git", "clone", "--quiet", "--depth", "1", f"file://{source}", tmp_path / "clone"])
    said: list[str] = []
    assert commit_date(tmp_path / "clone", said.append) == WHEN + 1
    assert "git fetch --unshallow" in said[0]


@pytest.mark.process
def test_a_repository_without_commit_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    assert commit_date(repository(tmp_path), said.append) == FIXED_EPOCH
    assert len(said) == 1
    assert "Git tells no commit" in said[0]


def test_without_git_a_fixed_date(tmp_path: Path, root: Path) -> None:
    """No program is asked: a repository further up is not this one."""
    said: list[str] = []
    assert commit_date(tmp_path, said.append) == FIXED_EPOCH
    assert load_environment(root, "demo", environ={}).iso.epoch == FIXED_EPOCH
    assert not said


def test_a_number_in_the_configuration_wins(tmp_path: Path, root: Path) -> None:
    environment = load_environment(root, "demo", environ={}, settings=[f"iso.epoch={WHEN}"])
    assert dated(environment, tmp_path, print).iso.epoch == WHEN
    for wrong in ("0", "yesterday", "true", "315532799", "4102444801", "[1]"):
        with pytest.raises(InputError, match=r"iso\.epoch: expected commit, or seconds since 1970 from 315532800"):
            load_environment(root, "demo", environ={}, settings=[f"iso.epoch={wrong}"])
