"""Patched copies of a large file, each hashed by reading only what is behind its first change.

A copy shares its blocks with the original where the file system can; elsewhere the kernel copies.
"""

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

FICLONE = 0x40049409  # of linux/fs.h: share all blocks of another file
CHUNK = 1 << 20
# What a kernel or file system answers that cannot do it this way.
UNABLE = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM)


@dataclass(frozen=True)
class Patch:
    """Other bytes from `offset` on."""

    offset: int
    data: bytes = field(repr=False)


class Original:
    """A file to copy, with changes only from the byte `first` on. To be used by several threads at once."""

    def __init__(self, path: Path, first: int) -> None:
        self._first = first
        self._file = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self._file).st_size
        self._pool = ThreadPoolExecutor(max_workers=2)
        self._prefix: Future[Any] = self._pool.submit(_hashed, self._file, hashlib.sha256(), 0, first)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        os.close(self._file)

    def digest(self) -> str:
        """SHA-256 in hex of the original, read now."""
        return self._whole(self._file)

    def copy(self, target: Path, patches: Sequence[Patch], *, sync: bool = False) -> str:
        """A new file that only the user may read; its SHA-256 in hex. With `sync` it is on the disk then.

        Nothing is left of one that did not become whole. Raises OSError.
        """
        if any(patch.offset < self._first or patch.offset + len(patch.data) > self.size for patch in patches):
            raise ValueError("a change reaches out of the place for changes")
        written = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            copy_bytes(self._file, written, self.size)
            for patch in patches:
                _write_at(written, patch)
            with ThreadPoolExecutor(max_workers=1) as disk:
                synced = disk.submit(os.fsync, written) if sync else None
                digest = self._whole(written)
                if synced:
                    synced.result()
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        finally:
            os.close(written)
        return digest

    def _whole(self, file: int) -> str:
        digest: str = _hashed(file, self._prefix.result().copy(), self._first, self.size).hexdigest()
        return digest


def copy_bytes(source: int, target: int, size: int) -> None:
    """All `size` bytes of one open file into another, empty one. Raises OSError."""
    if clone(source, target):
        return
    done = 0
    try:
        while done < size:
            done += (count := os.copy_file_range(source, target, size - done, done, done))
            if not count:
                raise OSError(errno.EIO, "the file became shorter while it was copied")
    except OSError as error:
        if error.errno not in UNABLE:
            raise
        with os.fdopen(os.dup(source), "rb") as reader, os.fdopen(os.dup(target), "wb") as writer:
            reader.seek(done)
            writer.seek(done)
            shutil.copyfileobj(reader, writer, CHUNK)


def clone(source: int, target: int) -> bool:
    """Make an open file share all blocks of another; False where the file system cannot."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        if error.errno in UNABLE:
            return False
        raise
    return True


def _write_at(file: int, patch: Patch) -> None:
    done = 0
    while done < len(patch.data):
        done += os.pwrite(file, patch.data[done:], patch.offset + done)


def _hashed(file: int, state: Any, start: int, end: int) -> Any:
    """The hash with the bytes from `start` to `end` added; of its own position in the file, for other threads."""
    while start < end:
        data = os.pread(file, min(CHUNK, end - start), start)
        if not data:
            raise OSError(errno.EIO, "the file became shorter while it was read")
        state.update(data)
        start += len(data)
    return state
