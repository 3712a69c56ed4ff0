"""A few threads for jobs that wait for others: a registry, a disk. Ctrl-C does not wait for them."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")
QUEUED = 2  # jobs for each thread that may wait for it


class Crew:
    """So many threads. Jobs begin in the order in which they were given; a job may wait for those before it."""

    def __init__(self, threads: int) -> None:
        self._jobs: queue.Queue[tuple[Future[Any], Callable[[], Any]] | None] = queue.Queue(QUEUED * threads)
        self._stopped = False
        self._threads = threads
        for _ in range(threads):
            threading.Thread(target=self._work, daemon=True).start()

    def begin(self, action: Callable[..., T], *arguments: Any) -> "Future[T]":
        """Give a job; returns when it does not have to wait for many others."""
        job: Future[T] = Future()
        self._jobs.put((job, lambda: action(*arguments)))
        return job

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Begin no further job after Ctrl-C, or without an engine; threads end when they have nothing to do."""
        self._stopped = kind is not None
        threading.Thread(target=self._dismiss, daemon=True).start()

    def _dismiss(self) -> None:
        for _ in range(self._threads):
            self._jobs.put(None)

    def _work(self) -> None:
        while given := self._jobs.get():
            job, action = given
            if self._stopped:
                job.cancel()
                continue
            try:
                job.set_result(action())
            except BaseException as error:  # handed over to who asks for the result
                job.set_exception(error)
