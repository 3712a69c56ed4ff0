"""Patched copies: the bytes, the hash, and what is left when something goes wrong. Real files."""

import errno
import fcntl
import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgebuild import copying
from edgebuild.copying import Original, Patch, clone, copy_bytes


def original(folder: Path, size: int = 5_000_000) -> Path:
    file = folder / "original"
    file.write_bytes(bytes(range(256)) * (size // 256) + b"end")
    return file


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(data=st.data())
def test_bytes_and_hashes(data: st.DataObject, tmp_path: Path) -> None:
    content = data.draw(st.binary(min_size=1, max_size=5000))
    first = data.draw(st.integers(0, len(content)))
    patches = []
    wanted = bytearray(content)
    for _ in range(data.draw(st.integers(0, 3))):
        offset = data.draw(st.integers(first, len(content)))
        piece = data.draw(st.binary(max_size=len(content) - offset))
        patches.append(Patch(offset, piece))
        wanted[offset : offset + len(piece)] = piece
    (tmp_path / "original").write_bytes(content)
    (tmp_path / "copy").unlink(missing_ok=True)
    with Original(tmp_path / "original", first) as file:
        assert file.copy(tmp_path / "copy", patches) == hashlib.sha256(wanted).hexdigest()
        assert file.digest() == hashlib.sha256(content).hexdigest()
    assert (tmp_path / "copy").read_bytes() == wanted
    assert (tmp_path / "original").read_bytes() == content


def test_only_the_user_may_read_it_and_secrets_are_not_shown(tmp_path: Path) -> None:
    patch = Patch(1, b"token")
    with Original(original(tmp_path), 0) as file:
        file.copy(tmp_path / "copy", [patch], sync=True)
        with pytest.raises(FileExistsError):
            file.copy(tmp_path / "copy", [])
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o600
    assert "token" not in repr(patch)


def test_nothing_outside_of_the_place_for_changes(tmp_path: Path) -> None:
    with Original(original(tmp_path), 100) as file:
        for patch in (Patch(99, b"x"), Patch(file.size, b"x")):
            with pytest.raises(ValueError, match="place for changes"):
                file.copy(tmp_path / "copy", [patch])
    assert not (tmp_path / "copy").exists()


def test_many_threads(tmp_path: Path) -> None:
    with Original(original(tmp_path), 4_000_000) as file, ThreadPoolExecutor(max_workers=8) as pool:
        patches = [[Patch(4_500_000, f"site {number}".encode())] for number in range(40)]
        found = list(pool.map(lambda n: file.copy(tmp_path / str(n), patches[n]), range(40)))
    for number, digest in enumerate(found):
        assert digest == hashlib.sha256((tmp_path / str(number)).read_bytes()).hexdigest()


@pytest.mark.parametrize("unable", copying.UNABLE)
def test_every_way_to_copy(unable: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system or kernel that cannot do it in one way is served in the next."""

    def refuse(*_: object) -> int:
        raise OSError(unable, os.strerror(unable))

    file = original(tmp_path)
    content = file.read_bytes()
    monkeypatch.setattr(fcntl, "ioctl", refuse)
    for name in ("kernel", "by hand"):
        with file.open("rb") as source, (tmp_path / name).open("wb") as target:
            assert not clone(source.fileno(), target.fileno())
            copy_bytes(source.fileno(), target.fileno(), len(content))
        assert (tmp_path / name).read_bytes() == content
        monkeypatch.setattr(os, "copy_file_range", refuse)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "copy_file_range", full)
    monkeypatch.setattr(fcntl, "ioctl", full)
    with Original(original(tmp_path), 0) as file, pytest.raises(OSError, match="No space left"):
        file.copy(tmp_path / "copy", [])
    assert not (tmp_path / "copy").exists()


def test_an_original_that_became_shorter(tmp_path: Path) -> None:
    path = original(tmp_path)
    with Original(path, 0) as file:
        os.truncate(path, 100)
        with pytest.raises(OSError, match="became shorter"):
            file.copy(tmp_path / "copy", [])
        with pytest.raises(OSError, match="became shorter"):
            file.digest()
    assert not (tmp_path / "copy").exists()
