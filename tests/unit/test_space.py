"""Free space: what is needed where, and a disk that runs full while a program fills it."""

import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from edgebuild import space
from edgebuild.config import load_environment
from edgebuild.errors import BuildError
from edgebuild.plan import make_plan
from edgebuild.results import Artifact
from edgebuild.run import CommandFailed, run
from edgebuild.space import Disk

GB = 10**9


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_estimates_know_the_last_set(root: Path) -> None:
    plan = make_plan("demo", load_environment(root, "demo", environ={}))
    kairos = make_plan("basic", load_environment(root, "basic", environ={}))
    assert space.engine_bytes(plan, []) == plan.estimated_bytes
    assert space.iso_bytes(plan, [], 7) == space.BOOTSTRAP_ISO_BYTES + 7
    assert space.iso_bytes(kairos, [], 0) == space.KAIROS_ISO_BYTES
    parts = [
        {"name": "/rootfs.squashfs", "offset": 0, "length": 1, "sha256": ""},
        {"name": "/opt/spectrocloud/content/a.tar_part00", "offset": 1, "length": 2 * GB, "sha256": ""},
    ]
    last = [
        Artifact(name="image", kind="provider-image", digest="", size_bytes=GB, seconds=1, reference="x"),
        Artifact(name="iso", kind="iso", digest="", size_bytes=3 * GB, seconds=1, path="y", contents=parts),
    ]
    assert space.engine_bytes(kairos, last) == 9 * GB
    assert space.iso_bytes(plan, last, 5 * GB) == 6 * GB


def test_one_file_system_must_hold_both(tmp_path: Path) -> None:
    (found,) = space.by_device([Disk("the engine", tmp_path, 1, "prune"), Disk("the results", tmp_path, 2, "clean")])
    assert found == Disk("the engine and the results", tmp_path, 3, "prune; clean")


def test_a_disk_that_is_too_small(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"are free, and this build may need 1000000.0 GB for the results") as caught:
        space.check([Disk("the results", tmp_path, 10**15, "clean")])
    assert caught.value.hint == "clean"


def test_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert space.there(tmp_path / "a/b") == tmp_path


@pytest.fixture
def almost_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk of 1 GB with 40 MB left, of which 50 MB are kept."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(GB, GB - 40 * 10**6, 40 * 10**6))
    monkeypatch.setattr(space, "LOOK_SECONDS", 0.01)


@pytest.mark.process
@pytest.mark.usefixtures("almost_full")
def test_a_disk_that_runs_full_stops_the_program(tmp_path: Path) -> None:
    says = r"the disk of the engine runs full: .* has 40.0 MB left, and 50.0 MB are kept"
    with pytest.raises(BuildError, match=says) as caught, space.watched([Disk("the engine", tmp_path, 0, "prune")]):
        run([sys.executable, "-c", "import signal; signal.pause()"])
    assert isinstance(caught.value.__cause__, CommandFailed)
    assert caught.value.hint == "prune"


@pytest.mark.process
def test_a_disk_with_space_disturbs_nobody(tmp_path: Path) -> None:
    with space.watched([Disk("the engine", tmp_path, 0, "")]):
        run(["true"])
    with pytest.raises(CommandFailed), space.watched([Disk("the engine", tmp_path, 0, "")]):
        run(["false"])
