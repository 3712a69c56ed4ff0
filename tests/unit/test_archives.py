"""Links and archives cannot leave their tree, and a broken archive is named."""

import contextlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebuild.archives import archive_problems
from edgebuild.links import leads_out


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, target, size
    return made


def archive(file: Path, *members: tarfile.TarInfo, mode: str = "w") -> Path:
    with tarfile.open(file, mode) as made:  # type: ignore[call-overload]
        for each in members:
            made.addfile(each, io.BytesIO(bytes(each.size)))
    return file


GOOD = (
    member("./", tarfile.DIRTYPE), member("./a", tarfile.DIRTYPE), member("./a/b.json", size=10), member("up", tarfile.SYMTYPE, "a/../a"),
    member("a/l", tarfile.SYMTYPE, "../up/b.json"), member("hard", tarfile.LNKTYPE, "a/b.json"), member("x" * 300, size=600),
    member("umläut ü\u2028"),
)  # fmt: skip


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_good_archives(tmp_path: Path, mode: str, form: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tarfile.TarFile, "format", form)
    file = archive(tmp_path / "a.tgz", *GOOD, mode=mode)
    assert archive_problems(file, compressed=True) == []
    assert bool(archive_problems(file, compressed=False)) == (mode != "w")


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([member("/etc/shadow")], "the member '/etc/shadow' would be unpacked outside"),
        ([member("a/../../x")], "the member 'a/../../x' would be unpacked outside"),
        ([member("..", tarfile.DIRTYPE)], "the member '..' would be"),
        ([member("l", tarfile.SYMTYPE, "/etc")], "the link 'l' leads out of the archive, to '/etc'"),
        ([member("l", tarfile.SYMTYPE, ".."), member("l/x")], "the link 'l' leads out of the archive, to '..'"),
        ([member("d/e/top", tarfile.SYMTYPE, "../.."), member("d/x", tarfile.SYMTYPE, "e/top/../out")], "the link 'd/x' leads out"),
        ([member("one", tarfile.SYMTYPE, "two"), member("two", tarfile.SYMTYPE, "../out")], "the link 'one' leads out"),
        ([member("h", tarfile.LNKTYPE, "../out")], "the link 'h' leads out"),
        ([member("h", tarfile.LNKTYPE, "/etc/shadow")], "the link 'h' leads out"),
        ([member("dev/sda", tarfile.BLKTYPE)], "the member 'dev/sda' is neither file, folder nor link"),
        ([member("tty", tarfile.CHRTYPE)], "the member 'tty' is neither"),
        ([member("pipe", tarfile.FIFOTYPE)], "the member 'pipe' is neither"),
        ([member("odd", b"Z")], "the member 'odd' is neither"),
    ],
)  # fmt: skip
def test_members_that_would_leave(tmp_path: Path, members: list[tarfile.TarInfo], expected: str) -> None:
    for mode in ("w", "w:gz"):
        problems = archive_problems(archive(tmp_path / "a.tar", *GOOD, *members, mode=mode), compressed=mode != "w")
        assert any(problem.startswith(expected) for problem in problems), problems


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def garble(file: Path) -> None:
    data = bytearray(file.read_bytes())
    header = 100 * 3584  # a header and 3000 bytes, rounded up
    data[min(header, len(data) // 2) + 20] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
@pytest.mark.parametrize("change", [cut, garble, lambda file: file.write_text("nothing of a tar" * 100)])
def test_broken_archives(tmp_path: Path, mode: str, change: Callable[[Path], object]) -> None:
    names = [member(os.urandom(20).hex(), size=3000) for _ in range(200)]
    file = archive(tmp_path / "a.tar", *names, mode=mode)
    change(file)
    assert "broken" in archive_problems(file, compressed=mode != "w")[0]


def test_only_headers_of_a_large_bundle_are_read(tmp_path: Path) -> None:
    """Three members of 300 GB each, sparse: reading them would take an hour."""
    file = tmp_path / "large.tar"
    with file.open("wb") as made:
        for name in ("one", "two", "../three"):
            made.write(member(name, size=300 * 10**9).tobuf(tarfile.GNU_FORMAT))
            made.seek(-(-300 * 10**9 // 512) * 512, 1)
        made.truncate(made.tell() + 1024)
    assert archive_problems(file, compressed=False) == [
        "the member '../three' would be unpacked outside of its folder"
    ]


def test_bombs(tmp_path: Path) -> None:
    file = archive(tmp_path / "a.tgz", *(member(f"{number}", size=10**7) for number in range(3)), mode="w:gz")
    assert archive_problems(file, compressed=True) == []
    header = member("bomb", size=10**12).tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "claims.tar").write_bytes(header)
    assert archive_problems(tmp_path / "claims.tar", compressed=True) == ["unpacks to more than 4 GB"]
    long = member("bomb", tarfile.GNUTYPE_LONGNAME, size=10**11).tobuf(tarfile.GNU_FORMAT)
    with (tmp_path / "name.tar").open("wb") as made:
        made.write(long)
        made.truncate(10**11)
    assert "a member's name is too long" in archive_problems(tmp_path / "name.tar", compressed=False)[0]
    assert "a member's name is too long" in archive_problems(tmp_path / "name.tar", compressed=True)[0]


@given(changes=st.lists(st.tuples(st.integers(0, 8000), st.integers(0, 255)), min_size=1, max_size=20))
def test_changed_bytes_end_in_problems_or_nothing(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    file = archive(tmp_path_factory.getbasetemp() / "changed.tar", *GOOD)
    data = bytearray(file.read_bytes())
    for place, value in changes:
        data[place] = value
    file.write_bytes(data)
    assert isinstance(archive_problems(file, compressed=True), list)


@pytest.mark.parametrize(
    ("links", "path", "archived", "rooted"),
    [
        ({"etc/l": "../usr"}, "etc/l", False, False),
        ({"etc/l": "../../usr"}, "etc/l", True, True),
        ({"l": "/etc/passwd"}, "l", True, False),
        ({"l": "/../etc"}, "l", True, True),
        ({"a/b/top": "../..", "x": "a/b/top/../out"}, "x", True, True),
        ({"d": "a/b", "x": "d/../../out"}, "x", False, False),  # two levels down, two up
        ({"d": "a/b", "x": "d/../../../out"}, "x", True, True),
        ({"a": "b", "b": "a"}, "a", False, False),
        ({"l": "."}, "l", False, False),
    ],
)
def test_links(links: dict[str, str], path: str, archived: bool, rooted: bool) -> None:
    assert leads_out(path, links, rooted=False) == archived
    assert leads_out(path, links, rooted=True) == rooted


PARTS = st.sampled_from(["a", "b", "c", "..", "."])
TARGETS = st.lists(PARTS, min_size=1, max_size=5).map("/".join)


@given(targets=st.dictionaries(st.sampled_from(["a", "b", "a/c", "b/c"]), TARGETS, min_size=1))
def test_links_are_followed_as_the_kernel_does(
    tmp_path_factory: pytest.TempPathFactory, targets: dict[str, str]
) -> None:
    """What stays in the tree by our reckoning does so on a real file system, too."""
    tree = tmp_path_factory.mktemp("links") / "1/2/3/4/5/6/tree"
    tree.mkdir(parents=True)
    links = {}
    for name, target in sorted(targets.items()):
        with contextlib.suppress(RuntimeError, OSError):  # below a link that leads nowhere
            if (tree / name).parent.resolve() == (tree / name).parent:
                (tree / name).parent.mkdir(exist_ok=True)
                (tree / name).symlink_to(target)
                links[name] = target
    for name in links:
        with contextlib.suppress(RuntimeError, OSError):
            reached = (tree / name).resolve(strict=True)
            assert leads_out(name, links, rooted=False) or reached.is_relative_to(tree)
