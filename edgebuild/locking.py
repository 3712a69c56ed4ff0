"""One run at a time in a folder; the kernel frees the lock of a run that was killed."""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(path: Path, say: Callable[[str], None], what: str) -> Iterator[None]:
    """Hold the lock file at `path`, which is made; wait for whoever has it, saying so. `what`: what it locks."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                say(f"waiting for another run on this {what} ({file.read().strip() or 'just started'})")
                fcntl.flock(file, fcntl.LOCK_EX)
            if not os.fstat(file.fileno()).st_nlink:
                continue  # `inv clean` removed it while we waited
            file.truncate(0)
            file.write(f"process {os.getpid()}, since {time.strftime('%H:%M:%S')}")
            file.flush()
            yield
            return
