"""Checks of images that begin while others are still built."""

import threading
from concurrent.futures import Future
from typing import Any, cast

import pytest

from edgebuild import gate
from edgebuild.session import Session

SESSION = cast(Session, None)


def test_early_checks_are_done_before_the_end_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that breaks takes nothing with it: the check at the end tells."""
    checked: list[str] = []

    def check(_: Any, digest: str) -> list[str]:
        if digest == "broken":
            raise RuntimeError(digest)
        checked.append(digest)
        return []

    monkeypatch.setattr(gate, "_problems", check)
    with gate.early_checks() as begin:
        for digest in ("a", "broken", "b", "c"):
            begin(SESSION, digest)
    assert sorted(checked) == ["a", "b", "c"]


def test_a_build_that_fails_waits_for_no_further_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Semaphore(0), threading.Event()
    checked: list[str] = []

    def check(_: Any, digest: str) -> list[str]:
        checked.append(digest)
        begun.release()
        go_on.wait()
        return []

    def interrupted() -> None:
        with gate.early_checks() as begin:
            futures = [cast("Future[Any]", begin(SESSION, str(number))) for number in range(gate.AT_ONCE + 5)]
            futures[-1].add_done_callback(lambda _: go_on.set())  # cancelled
            for _ in range(gate.AT_ONCE):
                begun.acquire()
            raise KeyboardInterrupt

    monkeypatch.setattr(gate, "_problems", check)
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(checked) == gate.AT_ONCE
