"""The sites of a fleet: what is read, and everything that can be wrong with it."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebuild.cloudconfig import is_for_sites
from edgebuild.errors import InputError
from edgebuild.siteindex import Entry, SiteIndex, put_checksum, state_of
from edgebuild.siteplan import Options, check_options, read_sites
from edgebuild.sites import Flaw, Flaws, Names, Site, decoded, document, rows


def flaws(text: str) -> list[str]:
    return [str(each) for each in rows(text, "sites.csv") if isinstance(each, Flaw)]


def sites(text: str) -> list[Site]:
    return [each for each in rows(text, "sites.csv") if isinstance(each, Site)]


def test_rows() -> None:
    found = sites('name,address\nedge-1,10.0.0.1\n\nedge-2,"a, ""b""\nc"\nedge-3,\n')
    assert [site.name for site in found] == ["edge-1", "edge-2", "edge-3"]
    assert found[1].values == {"name": "edge-2", "address": 'a, "b"\nc'}
    assert [site.where for site in found] == ["sites.csv:2", "sites.csv:4", "sites.csv:6"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "sites.csv: empty; the first line names the columns, such as: name,address"),
        ("\n\n", "sites.csv: empty"),
        ("address\n1\n", "sites.csv:1: no column `name`"),
        ("name,a,a\n", "sites.csv:1: column 3: 'a' stands there twice"),
        ("name,a b\n", "sites.csv:1: column 2: 'a b': a name of a value has letters"),
        ("name,\n", "sites.csv:1: column 2: '': a name of a value"),
        ("name,items\n", "sites.csv:1: column 2: 'items' means something else in a template"),
        ("name;a\nx;1\n", "sites.csv:1: the columns are not separated by commas"),
        ("name\ta\nx\t1\n", "sites.csv:1: the columns are not separated by commas"),
        ("name,a\nx\n", "sites.csv:2: 1 columns, and the head has 2"),
        ("name,a\nx,1,2\n", "sites.csv:2: 3 columns, and the head has 2"),
        ("name,a\n,1\n", "sites.csv:2: name: empty; it becomes a file's name"),
        ("name\n../x\n", "sites.csv:2: name: '../x'; it becomes a file's name"),
        ("name\n.hidden\n", "sites.csv:2: name: '.hidden'; "),
        ("name\na b\n", "sites.csv:2: name: 'a b'; "),
        ("name\nindex.json\n", "sites.csv:2: name: index.json is the name of another file there"),
        (f"name\n{'x' * 64}\n", "sites.csv:2: name: 'xxxx"),
        ('name,a\nx,"open\ny,1\n', "sites.csv:2: not CSV: unexpected end of data"),
        ('name,a\nx,"a"b\n', "sites.csv:2: not CSV: "),
        (f"name,a\nx,{'y' * 200_000}\n", "sites.csv:2: not CSV: field larger than field limit"),
    ],
)
def test_bad_rows(text: str, problem: str) -> None:
    found = flaws(text)
    assert len(found) == 1
    assert found[0].startswith(problem)


def test_all_bad_rows_at_once() -> None:
    assert len(flaws("name,a\n../x,1\nok,1\nx\ny,1,2\n")) == 3


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\xff\xfen\0a\0", "sites.csv: UTF-16 text; save it as UTF-8"),
        (b"name,a\nx,\xe4\n", "sites.csv:2: not UTF-8 text"),
    ],
)
def test_bad_encodings(data: bytes, problem: str) -> None:
    assert str(decoded(data, "sites.csv")) == problem


def test_the_mark_of_spreadsheets_is_no_part_of_the_first_name() -> None:
    text = decoded(b"\xef\xbb\xbfname\r\nx\r\n", "sites.csv")
    assert isinstance(text, str)
    assert [site.values for site in sites(text)] == [{"name": "x"}]


@given(st.text(), st.text(st.characters(exclude_characters="\r\0")))
def test_no_text_is_a_traceback_and_values_arrive(text: str, value: str) -> None:
    list(rows(text, "x"))
    list(document(text, "x", "x"))
    written = io.StringIO(newline="")
    csv.writer(written).writerows([["name", "value"], ["x", value]])
    assert [site.values["value"] for site in sites(written.getvalue())] == [value]


def test_documents() -> None:
    [site] = document("address: 10.0.0.1\nservers: [a, b]\nports: {ssh: 22}\n", "sites/edge-1.yaml", "edge-1")
    assert site == Site(
        "edge-1",
        {"name": "edge-1", "address": "10.0.0.1", "servers": ["a", "b"], "ports": {"ssh": 22}},
        "sites/edge-1.yaml",
    )
    [named] = document("name: other\n", "sites/edge-1.yaml", "edge-1")
    assert isinstance(named, Site)
    assert named.name == "other"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "s.yaml: empty"),
        ("- a\n", "s.yaml: expected `key: value` lines"),
        ("a: 1\nb: [\n", "s.yaml:3: not valid YAML"),
        ("a: 1\na: 2\n", "s.yaml:2: not valid YAML: a stands there twice"),
        ("1: a\n", "s.yaml: 1: a name of a value"),
        ("name: 12\n", "s.yaml: name: not a text"),
        ("name: a/b\n", "s.yaml: name: 'a/b'; "),
        ("a: !!python/object/apply:os.system [x]\n", "s.yaml:1: not valid YAML"),
    ],
)
def test_bad_documents(text: str, problem: str) -> None:
    [flaw] = document(text, "s.yaml", "s")
    assert isinstance(flaw, Flaw)
    assert str(flaw).startswith(problem)


def test_duplicate_names() -> None:
    names = Names()
    first, second, third = (Site(name, {}, f"sites.csv:{line}") for line, name in ((2, "a"), (3, "A"), (4, "a")))
    assert names.flaw(first) is None
    assert "is also in sites.csv:2 as a, and some file systems see no difference" in str(names.flaw(second))
    assert str(names.flaw(third)) == "sites.csv:4: name: a is also in sites.csv:2"


def test_100_000_rows() -> None:
    """Each problem once, a long list shortened."""
    text = "name,a\n" + "".join(f"edge-{number % 90_000},1\n" for number in range(100_000))
    names, found = Names(), Flaws()
    for each in rows(text, "sites.csv"):
        if flaw := each if isinstance(each, Flaw) else names.flaw(each):
            found.add(flaw)
    lines = found.lines(10)
    assert found.count == 10_000
    assert len(lines) == 11
    assert lines[-1] == "and 9,990 more"
    same = Flaws()
    for number in range(100_000):
        same.add(Flaw(f"sites.csv:{number + 2}", "no value named 'b'"))
    assert same.lines(10) == ["sites.csv:2: no value named 'b' (and 99,999 more)"]


@pytest.mark.parametrize("pattern", ["none.csv", "none/*.yaml", ".", ""])
def test_no_sites(pattern: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--sites"):
        read_sites(str(tmp_path / pattern) if pattern else "")


def test_options() -> None:
    for options in (Options("x", kind="usb"), Options("x", jobs=-1)):
        with pytest.raises(InputError):
            check_options(options)


def test_a_template_of_sites_is_known() -> None:
    assert is_for_sites("a: {{ site.address }}")
    assert is_for_sites("{% if site.address %}a: 1{% endif %}")
    assert not is_for_sites("stylus: {site: {a: {{ user.name }}}}")
    assert not is_for_sites("{{ ")


def entry(folder: Path, name: str, text: str = "iso") -> Entry:
    file = folder / name / "x.iso"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    digest = "a" * 64
    put_checksum(file, digest)
    return Entry(name, "iso", f"{name}/x.iso", digest, len(text), "key", "keyed", state_of(file))


def test_the_index_is_kept(tmp_path: Path) -> None:
    index = SiteIndex(tmp_path)
    one, two = entry(tmp_path, "one"), entry(tmp_path, "two-ü")
    for each in (one, two):
        index.put(each)
    index.save()
    again = SiteIndex(tmp_path)
    assert again.get("one", "iso") == one
    assert again.get("one", "cidata") is None
    assert list(again.sites("iso")) == ["one", "two-ü"]
    assert again.is_whole(one)
    assert (tmp_path / "index.json").stat().st_mode & 0o777 == 0o600


def test_what_was_changed_is_not_whole(tmp_path: Path) -> None:
    index = SiteIndex(tmp_path)
    index.save()
    damages: dict[str, Callable[[Path], object]] = {
        "written": lambda file: file.write_text("osi"),
        "shorter": lambda file: file.write_text("is"),
        "gone": lambda file: file.unlink(),
        "folder": lambda file: file.rename(file.with_name("moved")),
        "checksum": lambda file: file.with_name("x.iso.sha256").write_text("b" * 64 + "  x.iso\n"),
        "no checksum": lambda file: file.with_name("x.iso.sha256").unlink(),
    }
    for name, damage in damages.items():
        each = entry(tmp_path, name)
        assert SiteIndex(tmp_path).is_whole(each)
        damage(tmp_path / each.path)
        assert not SiteIndex(tmp_path).is_whole(each), name


def test_after_the_machine_went_down_files_are_read(tmp_path: Path) -> None:
    """What its state says is not trusted then: the bytes may not have reached the disk."""
    each = entry(tmp_path, "one")
    index = SiteIndex(tmp_path)
    index.put(each)
    index.save()
    assert SiteIndex(tmp_path).is_whole(each)  # by its state: these bytes have another checksum
    file = tmp_path / "index.json"
    file.write_text(file.read_text().replace('"boot": "', '"boot": "other'))
    assert not SiteIndex(tmp_path).is_whole(each)


@pytest.mark.parametrize("text", ["", "{}", '{"format": 1, "boot": "", "sites": [{"site": 1}]}', "[]", "\xff"])
def test_a_damaged_index_is_said(text: str, tmp_path: Path) -> None:
    (tmp_path / "index.json").write_bytes(text.encode("latin-1"))
    index = SiteIndex(tmp_path)
    assert "is damaged" in index.damage
    assert list(index.sites("iso")) == []
