"""Files by content: what a COPY takes, and hashes that are remembered only as long as a file stands as it was."""

import os
from pathlib import Path

from edgebuild import sums
from edgebuild.contents import LARGE_BYTES, Contents


def contents(root: Path) -> Contents:
    return Contents(root, root / "cache/contents.json")


def test_entries_are_what_an_instruction_copies(tmp_path: Path) -> None:
    for name in ("overlay/etc/a", "overlay/.gitkeep", "certs/x.crt", "certs/y.pem"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "overlay/etc/a").chmod(0o755)
    (tmp_path / "overlay/link").symlink_to("etc/a")
    found = contents(tmp_path)
    digest = sums.digest(tmp_path / "overlay/etc/a")
    assert found.entries("overlay/") == {"overlay/etc/a": f"0755 {digest}", "overlay/link": "-> etc/a"}
    assert list(found.entries("certs/*.crt")) == ["certs/x.crt"]
    assert found.entries("nothing") == {}
    assert found.entries("[") == {}


def test_the_whole_context_leaves_out_what_dockerignore_names(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("# a comment\nbuild\n")
    for name in ("build/x", "src/y"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(name)
    assert list(contents(tmp_path).entries(".")) == [".dockerignore", "src/y"]


def test_a_large_file_is_read_once_and_again_when_it_changed(tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(bytes(LARGE_BYTES))
    first = contents(tmp_path)
    digest = first.digest(file)
    first.save()
    known = contents(tmp_path)
    known._known = {name: [*entry[:3], "remembered"] for name, entry in known._known.items()}
    assert known.digest(file) == "remembered"
    file.write_bytes(b"1" + bytes(LARGE_BYTES - 1))  # the same size
    assert known.digest(file) not in {"remembered", digest}


def test_a_noted_hash_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(bytes(LARGE_BYTES))
    found = contents(tmp_path)
    found.note(file, "noted")
    assert found.digest(file) == "noted"
    os.utime(file, ns=(1, 1))
    assert found.digest(file) == sums.digest(file)


def test_a_damaged_memory_is_forgotten(tmp_path: Path) -> None:
    for text in ("", "[]", '{"a": 1}', '{"a": [1, 2]}', "\x00"):
        (tmp_path / "cache").mkdir(exist_ok=True)
        (tmp_path / "cache/contents.json").write_text(text)
        file = tmp_path / "file"
        file.write_text("x")
        assert contents(tmp_path).digest(file) == sums.digest(file)
