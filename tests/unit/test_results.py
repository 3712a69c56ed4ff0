"""Results after kills and damage: recognised when the next run takes the lock, and made whole."""

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest

from edgebuild import bootstrap
from edgebuild.errors import BuildError, VerificationError
from edgebuild.locking import locked
from edgebuild.results import Artifact, Results


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """A folder with one complete set."""
    found = Results(tmp_path / "build/x")
    publish(found, {"one.iso": "1"}, "iso")
    return found


def publish(results: Results, files: dict[str, str], *names: str) -> None:
    artifacts = [Artifact(name=name, kind="iso", digest="sha256:1", size_bytes=1, seconds=0.5) for name in names]
    with results.lock(print), results.staging() as staging:
        for name, text in files.items():
            (staging / name).write_text(text)
        results.publish(staging, {"iso", "image"}, artifacts)


def said_by_lock(results: Results) -> str:
    said: list[str] = []
    with results.lock(said.append):
        pass
    return "\n".join(said)


def test_what_killed_runs_left_goes_with_the_next_lock(results: Results) -> None:
    (results.folder / ".sets/staging-77").mkdir()
    (results.folder / ".sets/staging-77/user-data").write_text("a token")
    (results.folder / ".sets/9").mkdir()  # finished, but not switched to
    (results.folder / ".one.iso.77").symlink_to(".current/one.iso")
    (results.folder / "boot/.qemu-x").mkdir(parents=True)
    (results.folder / "records/boots").mkdir(parents=True)
    (results.folder / "records/boots/.x.json.77-1").touch()
    (results.folder / "..current.77").symlink_to(".sets/9")
    assert said_by_lock(results) == ""
    assert sorted(path.name for path in results.folder.iterdir()) == [
        ".current", ".lock", ".sets", "artifacts.json", "boot", "one.iso", "records",
    ]  # fmt: skip
    assert not list((results.folder / "records/boots").iterdir())
    assert not list((results.folder / "boot").iterdir())
    assert [path.name for path in (results.folder / ".sets").iterdir()] == ["1"]
    assert (results.folder / "one.iso").read_text() == "1"


def test_what_must_follow_the_switch_is_not_forgotten(results: Results) -> None:
    def follow() -> None:
        assert results.unfinished.exists()
        assert (results.folder / "two.iso").read_text() == "2"
        raise KeyboardInterrupt

    def killed() -> None:
        with results.lock(print), results.staging() as staging:
            (staging / "two.iso").write_text("2")
            results.publish(staging, {"iso"}, follow=follow)

    with pytest.raises(KeyboardInterrupt):
        killed()
    publish(results, {})  # of a task that follows nothing up
    assert results.unfinished.exists()
    results.unfinished.unlink()
    publish(results, {})
    assert not results.unfinished.exists()


def test_a_run_killed_after_the_switch_gets_its_links(results: Results) -> None:
    (results.folder / "one.iso").unlink()
    (results.folder / "old.iso").symlink_to(".current/old.iso")
    said_by_lock(results)
    assert (results.folder / "one.iso").read_text() == "1"
    assert not os.path.lexists(results.folder / "old.iso")


@pytest.mark.parametrize("damage", ["nowhere", "outside", "missing", "a file"])
def test_current_that_names_no_set(results: Results, damage: str) -> None:
    current = results.current
    current.unlink()
    if damage == "a file":
        current.write_text("")
    elif damage != "missing":
        current.symlink_to(".sets/5" if damage == "nowhere" else "/tmp")
    assert "names no set; the last complete one is .sets/1" in said_by_lock(results)
    assert (results.folder / "one.iso").read_text() == "1"
    publish(results, {"two.iso": "2"})
    assert [each.name for each in results.artifacts()] == ["iso"]


def test_a_copy_of_the_folder_that_followed_the_links(results: Results) -> None:
    alive = results.current.resolve()
    results.current.unlink()
    alive.rename(results.current)
    (results.folder / "one.iso").unlink()
    (results.folder / "one.iso").write_text("1")
    said_by_lock(results)
    assert (results.folder / "one.iso").is_symlink()
    assert (results.folder / "one.iso").read_text() == "1"


@pytest.mark.parametrize("text", ["", "[", "{}x", '{"a": 1}', "[1]", '[{"name": "iso"}]', "\udcff"])
def test_a_damaged_list_of_artifacts(results: Results, text: str) -> None:
    (results.current / "artifacts.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(VerificationError, match=r"artifacts\.json is damaged") as caught:
        results.artifacts()
    assert "build-all-images" in caught.value.hint
    assert "artifacts.json is damaged" in said_by_lock(results)
    publish(results, {"one.iso": "2"}, "iso")
    assert [each.name for each in results.artifacts()] == ["iso"]
    assert said_by_lock(results) == ""


@pytest.mark.parametrize(
    ("number", "says"),
    [(errno.ENOSPC, "the disk is full: "), (errno.EDQUOT, "the disk is full: "), (errno.EROFS, "cannot be written")],
)
def test_a_disk_that_takes_nothing_is_a_clear_error(results: Results, number: int, says: str) -> None:
    with pytest.raises(BuildError, match=says) as caught, results.lock(print):
        raise OSError(number, os.strerror(number))
    assert caught.value.hint


def test_other_errors_stay_what_they_are(results: Results) -> None:
    with pytest.raises(PermissionError), results.lock(print):
        raise PermissionError(errno.EACCES, "Permission denied", "/etc/shadow")


def test_logs_of_one_second_do_not_replace_each_other(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.strftime", lambda *_: "20240101-000000")
    names = [results.new_log("build").name for _ in range(3)]
    assert names == ["build-20240101-000000.log", "build-20240101-000000-1.log", "build-20240101-000000-2.log"]


def test_a_lock_that_was_removed_while_held_locks_nobody_out(tmp_path: Path) -> None:
    """As `inv clean` does it."""
    path = tmp_path / "folder/.lock"
    with locked(path, print, "folder"):
        path.unlink()
    with locked(path, print, "folder"):
        assert path.read_text().startswith(f"process {os.getpid()}, since ")


def test_a_base_is_used_only_as_it_was_made(tmp_path: Path) -> None:
    tar, made_from = tmp_path / "base.tar", tmp_path / "made-from.json"
    assert bootstrap.damage(tar, made_from, {}) == "made-from.json or the base itself cannot be read"
    tar.write_text("base")
    digest = hashlib.sha256(b"base").hexdigest()
    made_from.write_text(json.dumps({"recipe": {}, "sha256": digest}))
    assert bootstrap.damage(tar, made_from, {}) == ""
    assert bootstrap.damage(tar, made_from, {"epoch": 1}) == "it was made from another recipe"
    tar.write_text("bass")
    assert bootstrap.damage(tar, made_from, {}).startswith("it is damaged")
    made_from.write_text("[")
    assert bootstrap.damage(tar, made_from, {}).endswith("cannot be read")
