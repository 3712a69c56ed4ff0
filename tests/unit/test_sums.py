"""SHA256SUMS, and records of what has passed."""

import hashlib
from pathlib import Path

import pytest

from edgebuild import sums
from edgebuild.errors import VerificationError
from edgebuild.records import Records


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.iso", "inputs/Dockerfile", "with space"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    sums.write(tmp_path, {})
    return tmp_path


def test_every_file_is_in_it(folder: Path) -> None:
    assert sums.read(folder) == {
        name: hashlib.sha256(name.encode()).hexdigest() for name in ("a.iso", "inputs/Dockerfile", "with space")
    }
    assert list(sums.problems(folder, known={})) == []


def test_what_is_known_is_not_read(folder: Path) -> None:
    sums.write(folder, {"a.iso": "0" * 64})
    assert sums.read(folder)["a.iso"] == "0" * 64
    assert list(sums.problems(folder, known={"a.iso": "0" * 64})) == []


def test_everything_that_differs_is_named(folder: Path) -> None:
    (folder / "a.iso").write_text("other")
    (folder / "with space").unlink()
    (folder / "new").write_text("new")
    assert list(sums.problems(folder, known={})) == [
        "a.iso: is not what was built: its checksum differs",
        f"new: is not in {sums.NAME}",
        "with space: is missing",
    ]


@pytest.mark.parametrize("line", ["", "abc  x", "g" * 64 + "  x", "0" * 64 + " x"])
def test_a_damaged_line(folder: Path, line: str) -> None:
    (folder / sums.NAME).write_text(f"{line}\n")
    with pytest.raises(VerificationError, match="line 1 is damaged"):
        sums.read(folder)
    assert list(sums.problems(folder, known={})) == [f"{sums.NAME}: line 1 is damaged"]


def test_no_sums(tmp_path: Path) -> None:
    assert list(sums.problems(tmp_path, known={})) == [f"{sums.NAME}: is missing"]
    (tmp_path / sums.NAME).write_bytes(b"\xff")
    with pytest.raises(VerificationError, match="not text"):
        sums.read(tmp_path)


def test_records(tmp_path: Path) -> None:
    records = Records(tmp_path / "records")
    assert records.get("boots", "sha256:1") is None
    records.add("boots", "sha256:1", seconds=5)
    assert (records.get("boots", "sha256:1") or {})["seconds"] == 5
    assert records.get("images", "sha256:1") is None
    file = tmp_path / "records/boots/1.json"
    file.rename(file.with_name("2.json"))  # of another content: no proof of this one
    assert records.get("boots", "sha256:2") is None
    file.write_text("{")
    assert records.get("boots", "sha256:1") is None
