"""`site-isos`: an ISO for each site of a fleet, on the real engine and real disks."""

import csv
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgebuild import fleet
from edgebuild.errors import BuildError
from edgebuild.gate import DamagedBootTree
from edgebuild.run import Result, run
from edgebuild.session import open_session
from edgebuild.siteplan import Options
from tests.conftest import TOKEN, Workspace
from tests.integration.images import in_tools, iso_text
from tests.keys import install

DEMO = ("--env", "demo", "--set", "secrets.edge_host_token=env:EDGE_HOST_TOKEN")
BOOT_TREE = "edgebuild/boot-tree:demo"
TEMPLATE = """#cloud-config
stylus:
  site:
    edgeHostToken: {{ secrets.edge_host_token }}
    name: {{ site.name }}
users:
  - name: {{ user.name }}
    passwd: {{ user.password_hash }}
write_files:
  - path: /etc/site
    content: {{ site.note }}
"""
NOTES = ["10.0.0.1", "quote \" and 'quote', #: comma, {{ }}\nsecond line", "umlaut-ü " + "long " * 900]


@pytest.fixture
def sites(workspace: Workspace, demo: Result) -> Iterator[Path]:
    """The demo environment's folder of sites, empty at first and gone afterwards; templates beside it."""
    folder = workspace.root / "build/demo/sites"
    shutil.rmtree(folder, ignore_errors=True)
    workspace.write("site.j2", TEMPLATE)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def write_rows(workspace: Workspace, rows: dict[str, str]) -> None:
    with (workspace.root / "sites.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["name", "note"], *rows.items()])


def call(workspace: Workspace, *arguments: str, check: bool = True, template: str = "site.j2") -> Result:
    argv = ["site-isos", *DEMO, "--sites", "sites.csv", "--user-data", template, *arguments]
    return workspace.call(*argv, env={"EDGE_HOST_TOKEN": TOKEN}, check=check)


def index(folder: Path) -> dict[str, dict[str, Any]]:
    found = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    return {each["site"]: each for each in found["sites"]}


def test_installer_isos(workspace: Workspace, sites: Path) -> None:
    """Content, rights, checksums, index; one user-data is longer than the others, so there are two originals."""
    write_rows(workspace, {f"edge-{number}": note for number, note in enumerate(NOTES)})
    assert "3 sites: 3 written, 0 as they were" in call(workspace).stdout
    assert len(list((sites / ".originals").glob("*.iso"))) == 2
    for name, entry in index(sites).items():
        iso = sites / entry["path"]
        assert iso == sites / name / f"palette-edge-installer-{name}.iso"
        assert iso.stat().st_mode & 0o777 == 0o600
        assert iso.with_name(iso.name + ".sha256").stat().st_mode & 0o777 == 0o600
        assert iso.with_name(iso.name + ".sha256").read_text().startswith(entry["sha256"])
        run(["sha256sum", "-c", "--strict", iso.name + ".sha256"], cwd=iso.parent)
        data = yaml.safe_load(iso_text(iso, BOOT_TREE, "/files-iso/config.yaml"))
        assert data["stylus"]["site"] == {"edgeHostToken": TOKEN, "name": name}
        assert data["write_files"][0]["content"] == NOTES[int(name[-1])]
    workspace.call("verify", "--path", str(iso))
    texts = [(sites / "index.json").read_text(), *(log.read_text() for log in sites.parent.glob("logs/*"))]
    assert not [text for text in texts if "a token with" in text]
    for original in (sites / ".originals").glob("*.iso"):
        assert TOKEN.encode()[:12] not in original.read_bytes()
    assert "3 sites: 0 written, 3 as they were" in call(workspace).stdout


def test_a_site_has_the_bytes_that_xorriso_writes(workspace: Workspace, sites: Path) -> None:
    write_rows(workspace, {"edge-1": "x"})
    call(workspace, template="user-data.j2")
    shutil.rmtree(workspace.root / "build/demo/records/layouts", ignore_errors=True)
    (workspace.result("demo", "palette-edge-installer.iso")).resolve().unlink()
    workspace.call("iso", *DEMO, env={"EDGE_HOST_TOKEN": TOKEN})
    made = workspace.result("demo", "palette-edge-installer.iso.sha256").read_text().split()[0]
    assert index(sites)["edge-1"]["sha256"] == made
    workspace.call("iso", "--env", "demo")


def test_a_damaged_original_reaches_no_site(workspace: Workspace, sites: Path) -> None:
    write_rows(workspace, {"edge-1": "x"})
    call(workspace, "--kind", "cidata")
    before = index(sites)["edge-1"]["sha256"]
    original = next((sites / ".originals").glob("*.iso"))
    times = original.stat()
    with original.open("r+b") as file:
        file.write(b"x")
    os.utime(original, ns=(times.st_atime_ns, times.st_mtime_ns))
    (sites / "edge-1/palette-edge-installer-edge-1-cidata.iso").unlink()
    assert "1 site: 1 written" in call(workspace, "--kind", "cidata").stdout
    assert index(sites)["edge-1"]["sha256"] == before


def test_a_damaged_boot_tree_is_made_anew(workspace: Workspace, sites: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, and then all goes on; the damage itself is done to a real engine in test_verify."""
    write_rows(workspace, {"edge-1": "x"})
    monkeypatch.setenv("EDGE_HOST_TOKEN", TOKEN)
    monkeypatch.chdir(workspace.root)
    original = fleet._original
    forgotten: list[str] = []

    def damaged_once(*arguments: Any) -> Any:
        if not forgotten:
            raise DamagedBootTree("the boot tree in the engine is damaged: /rootfs.squashfs")
        return original(*arguments)

    monkeypatch.setattr(fleet, "_original", damaged_once)
    monkeypatch.setattr(fleet, "forget_image", lambda digest, *_, **__: forgotten.append(digest))
    session = open_session(workspace.root, "demo", [DEMO[-1]])
    fleet.make(session, Options("sites.csv", "iso", "site.j2"))
    assert forgotten == [each.digest for each in session.results.artifacts() if each.kind == "boot-tree"]
    assert list(index(sites)) == ["edge-1"]


def test_cidata_and_resuming(workspace: Workspace, sites: Path) -> None:
    """Only what is new, changed, gone or damaged is written; what nobody asks for any more stays."""
    rows = {f"edge-{number}": f"note {number}" for number in range(10)}
    write_rows(workspace, rows)
    assert "10 sites: 10 written" in call(workspace, "--kind", "cidata").stdout
    first = index(sites)
    iso = sites / first["edge-3"]["path"]
    script = "xorriso -osirrox on -indev /iso.iso -extract / /tmp/all 2>/dev/null; cd /tmp/all; ls; cat user-data"
    shown = in_tools(iso, BOOT_TREE, script)
    assert shown.splitlines()[:2] == ["meta-data", "user-data"]
    assert yaml.safe_load(shown.partition("user-data\n")[2])["write_files"][0]["content"] == "note 3"
    assert run(["blkid", "-o", "value", "-s", "LABEL", "-p", iso]).stdout.strip() == "cidata"

    del rows["edge-9"]
    write_rows(workspace, {**rows, "edge-0": "another note", "edge-x": "new"})
    (sites / first["edge-1"]["path"]).unlink()
    damaged = sites / first["edge-2"]["path"]
    times = damaged.stat()
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    os.utime(damaged, ns=(times.st_atime_ns, times.st_mtime_ns))
    (sites / "edge-4/.x.iso.part").write_text("left by a killed run")
    result = call(workspace, "--kind", "cidata")
    assert "10 sites: 4 written, 6 as they were" in result.stdout
    assert "not asked for any more, and left as they are: edge-9" in result.stdout
    second = index(sites)
    assert {name for name in first if first[name] != second[name]} == {"edge-0", "edge-1", "edge-2"}
    assert {name for name in first if first[name]["sha256"] != second[name]["sha256"]} == {"edge-0"}
    assert (sites / first["edge-9"]["path"]).exists()
    assert not list(sites.glob("*/.*.part"))

    (sites / "index.json").write_text("{")
    assert "index.json is damaged" in call(workspace, "--kind", "cidata").stderr
    # A folder that holds something stands where one site's ISO belongs.
    (sites / first["edge-5"]["path"]).unlink()
    (sites / first["edge-5"]["path"] / "x").mkdir(parents=True)
    result = call(workspace, "--kind", "cidata", check=False)
    assert result.returncode == 1
    assert "1 of 10 sites failed:\n  sites.csv:7: edge-5: Is a directory" in result.stderr
    shutil.rmtree(sites / first["edge-5"]["path"])
    assert "10 sites: 1 written, 9 as they were" in call(workspace, "--kind", "cidata").stdout


def test_a_full_disk_in_the_middle(
    workspace: Workspace, sites: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done stays and is in the index; with more room the same call goes on."""
    sites.mkdir()
    image = tmp_path / "disk"
    run(["truncate", "--size", "9M", image])
    run(["mkfs.ext4", "-q", "-m", "0", image])
    run(["mount", "-o", "loop", image, sites])
    try:
        write_rows(workspace, {f"edge-{number:02}": "x" for number in range(30)})
        result = call(workspace, "--kind", "cidata", check=False)
        assert result.returncode == 1
        assert "the ISOs of the sites need" in result.stderr
        assert not list(sites.glob("edge-*"))
        # It grows full while the sites are written.
        monkeypatch.setenv("EDGE_HOST_TOKEN", TOKEN)
        monkeypatch.setattr(fleet, "_check_space", lambda *_: None)
        monkeypatch.chdir(workspace.root)
        session = open_session(workspace.root, "demo", [DEMO[-1]])
        with pytest.raises(BuildError, match=r"the disk is full; .* of 30 sites have no ISO of now") as caught:
            fleet.make(session, Options("sites.csv", "cidata", "site.j2"))
        assert "goes on where it stopped" in caught.value.hint
        done = index(sites)
        assert 0 < len(done) < 30
        for entry in done.values():
            run(["sha256sum", "-c", Path(entry["path"]).name + ".sha256"], cwd=(sites / entry["path"]).parent)
        assert not list(sites.glob("*/.*.part"))
        write_rows(workspace, dict.fromkeys(done, "x"))
        assert f"{len(done)} sites: 0 written, {len(done)} as they were" in call(workspace, "--kind", "cidata").stdout
    finally:
        run(["umount", sites])


def test_copies_that_share_their_blocks(workspace: Workspace, sites: Path, tmp_path: Path) -> None:
    """On XFS all ISOs together are larger than their disk."""
    install("mkfs.xfs", "xfsprogs")
    sites.mkdir()
    image = tmp_path / "disk"
    run(["truncate", "--size", "1G", image])
    run(["mkfs.xfs", "-q", image])
    run(["mount", "-o", "loop", image, sites])
    try:
        before = shutil.disk_usage(sites).used
        write_rows(workspace, {f"edge-{number}": f"site {number}" for number in range(8)})
        assert "8 sites: 8 written, 0 as they were" in call(workspace).stdout
        isos = [sites / entry["path"] for entry in index(sites).values()]
        length = isos[0].stat().st_size
        assert sum(iso.stat().st_size for iso in isos) > shutil.disk_usage(sites).total
        assert shutil.disk_usage(sites).used - before < 1.1 * length
        for iso in isos:
            run(["sha256sum", "-c", "--strict", iso.name + ".sha256"], cwd=iso.parent)
    finally:
        run(["umount", sites])


def test_bad_sites(workspace: Workspace, sites: Path) -> None:
    """Everything that is wrong, at once, and before anything is written."""
    for text, template, said in (
        (
            "name,note\na/b,1\nx,1\nX,1\n",
            TEMPLATE,
            ["2 problems in the sites", "sites.csv:2: name: 'a/b'", "sites.csv:4"],
        ),
        ("name,other\na,1\nb,2\n", TEMPLATE, ["sites.csv:2: site.j2:11: no value named 'note' (and 1 more)"]),
        ("name,note\na,secret-1\n", "#cloud-config\ninstall: {{ site.note }}\n", ["sites.csv:2: site.j2: install: "]),
        ("name,note\na,1\n", "#cloud-config\n{{ site.note\n", ["sites.csv:2: site.j2:"]),
        ("name,note\n", TEMPLATE, ["sites.csv: no site"]),
    ):
        workspace.write("sites.csv", text)
        workspace.write("site.j2", template)
        result = call(workspace, check=False)
        assert result.returncode == 2, result.stderr
        for part in said:
            assert part in result.stderr
        assert "secret-1" not in result.stderr
        assert not sites.exists()


def test_values_of_sites_have_no_place_in_the_one_iso(workspace: Workspace, sites: Path) -> None:
    before = (workspace.root / "user-data.j2").read_text()
    try:
        workspace.write("user-data.j2", TEMPLATE)
        result = workspace.call("iso", "--env", "demo", check=False, env={"EDGE_HOST_TOKEN": TOKEN})
        assert result.returncode == 2
        assert "./inv site-isos --env demo" in result.stderr
        workspace.call("render", "--env", "demo")
        assert workspace.result("demo", "inputs/user-data").read_text() == TEMPLATE
    finally:
        workspace.write("user-data.j2", before)


def test_yaml_sites(workspace: Workspace, sites: Path) -> None:
    workspace.write("fleet/edge-a.yaml", "note: a\n")
    workspace.write("fleet/b.yaml", "name: edge-b\nnote: b\n")
    argv = ["site-isos", *DEMO, "--sites", "fleet/*.yaml", "--user-data", "site.j2", "--kind", "cidata"]
    assert "all of them get the same" not in workspace.call(*argv, env={"EDGE_HOST_TOKEN": TOKEN}).stderr
    assert sorted(index(sites)) == ["edge-a", "edge-b"]
    argv[argv.index("site.j2")] = "user-data.j2"
    said = workspace.call(*argv, env={"EDGE_HOST_TOKEN": TOKEN}).stderr
    assert "note: user-data.j2 asks for no value of a site, `{{ site.name }}`: all of them get the same" in said
