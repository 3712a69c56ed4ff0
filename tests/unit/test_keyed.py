"""The key of keyed hashes: made once, kept, the user's alone."""

import hashlib
import hmac
import os
import stat
import threading
from pathlib import Path

from edgebuild.keyed import KEY_BYTES, Keyed


def test_made_once_and_only_for_the_user(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        first = Keyed(tmp_path).digest(b"user-data")
    finally:
        os.umask(old)
    key = tmp_path / "build/.cache/keyed"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert len(key.read_bytes()) == KEY_BYTES
    assert [path.name for path in key.parent.iterdir()] == ["keyed"]
    assert (
        first
        == Keyed(tmp_path).digest(b"user-data")
        == hmac.new(key.read_bytes(), b"user-data", "sha256").hexdigest()
    )
    assert first != Keyed(tmp_path).digest(b"user-data\n")
    assert first != hashlib.sha256(b"user-data").hexdigest()


def test_another_repository_has_another_key(tmp_path: Path) -> None:
    assert Keyed(tmp_path / "a").digest(b"x") != Keyed(tmp_path / "b").digest(b"x")


def test_many_at_once_agree(tmp_path: Path) -> None:
    ready = threading.Barrier(8)
    found: list[str] = []

    def run() -> None:
        ready.wait()
        found.append(Keyed(tmp_path).digest(b"x"))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_a_damaged_key_is_replaced(tmp_path: Path) -> None:
    key = tmp_path / "build/.cache/keyed"
    key.parent.mkdir(parents=True)
    key.write_bytes(b"short")
    digest = Keyed(tmp_path).digest(b"x")
    assert len(key.read_bytes()) == KEY_BYTES
    assert Keyed(tmp_path).digest(b"x") == digest
