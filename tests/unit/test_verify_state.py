"""What is remembered of verified sets and of boots, by the content that it is about."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgebuild import sums, verify
from edgebuild.results import Results


@pytest.fixture
def session(tmp_path: Path) -> Any:
    """As much of a session as is asked for: its results, with one set."""
    folder = tmp_path / ".current"
    folder.mkdir()
    (folder / "x.iso").write_text("iso")
    sums.write(folder, {})
    return SimpleNamespace(results=Results(tmp_path))


def test_a_set_that_passed(session: Any) -> None:
    assert not verify.is_verified(session)
    verify.remember(session, [verify.Finding("x", "y")])
    assert verify.is_verified(session)


def test_a_set_with_problems_is_not_noted(session: Any) -> None:
    verify.remember(session, [verify.Finding("x", "y", ("z",))])
    assert not verify.is_verified(session)


def test_another_content_has_not_passed(session: Any) -> None:
    verify.remember(session, [])
    iso = session.results.current / "x.iso"
    iso.write_text("osi")  # of the same size
    assert not verify.is_verified(session)
    sums.write(session.results.current, {})
    assert not verify.is_verified(session)


def test_without_sums_nothing_has_passed(session: Any) -> None:
    (session.results.current / sums.NAME).unlink()
    verify.remember(session, [])
    assert not verify.is_verified(session)
