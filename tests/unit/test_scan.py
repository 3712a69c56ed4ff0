"""Where a secret is found, what is remembered, and how layers are read."""

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from backports import zstd

from edgebuild import imagescan, needles
from edgebuild.imagescan import Image, search_archive, search_argv
from edgebuild.needles import Find, Needles, places
from edgebuild.scan import KEPT_SETS, Memory

SECRETS = {"secrets.token": "hunter2-hunter2", "secrets.other": "päss 'word'", "secrets.short": "seven77"}


def found(data: bytes) -> list[Find]:
    return list(places(Needles(SECRETS).search(data), "file", data))


def test_places() -> None:
    assert Needles(SECRETS).too_short == ("secrets.short",)
    assert Needles(SECRETS).keys == ("secrets.token", "secrets.other")
    text = b"one\nx hunter2-hunter2 hunter2-hunter2\np%C3%A4ss+%27word%27 seven77\n"
    assert found(text) == [
        Find("file, line 2", "secrets.token", "as it is"),
        Find("file, line 3", "secrets.other", "URL-escaped"),
    ]
    assert found(b"\0" + text)[0].where == "file, byte 7"
    assert found(b"aHVudGVyMi1odW50ZXIy") == [Find("file, line 1", "secrets.token", "in base64")]
    assert found(b"p\\u00e4ss 'word'") == [Find("file, line 1", "secrets.other", "escaped")]
    assert found("päss &#39;word&#39;".encode())[0].form == "quoted"
    assert found(b"hunter2") == []


def test_a_file_in_any_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that stands across the border of two chunks is found, and once."""
    monkeypatch.setattr(needles, "CHUNK", 50)
    monkeypatch.setattr(needles, "OVERLAP", 30)
    looked_for = Needles({"k": "hunter2-hunter2"})
    for before in range(120):
        file = io.BytesIO(b"x" * before + b"hunter2-hunter2" + b"y" * 120 + b"hunter2-hunter2")
        assert [hit.offset for hit in looked_for.search_file(file)] == [before, before + 135]
        file.seek(5)
        assert [hit.offset for hit in looked_for.search_file(file, 140)] == [before - 5] * (5 <= before <= 130)


def test_memory(tmp_path: Path) -> None:
    folder = tmp_path / "cache/scan"
    memory = Memory(folder, "these")
    assert memory.known == set()
    memory.add(["sha256:1", "sha256:2"])
    memory.add(["sha256:2", "sha256:3"])
    assert Memory(folder, "these").known == {"sha256:1", "sha256:2", "sha256:3"}
    assert Memory(folder, "other").known == set()  # another secret: everything is searched again
    assert {path.stat().st_mode & 0o077 for path in (folder, *folder.iterdir())} == {0}
    for number in range(KEPT_SETS):
        Memory(folder, str(number)).add(["sha256:1"])
    assert Memory(folder, "these").known == set()
    assert len(json.loads((folder / "searched.json").read_text())) == KEPT_SETS
    for damage in ("", "{", "[]", '{"a": 1}'):
        (folder / "searched.json").write_text(damage)
        assert Memory(folder, "these").known == set()


def image(name: str, layers: list[str], driver: dict[str, Any] | None) -> Image:
    return Image(name, f"sha256:{name}", {"RootFS": {"Layers": layers}, "GraphDriver": driver})


def test_folders_of_layers() -> None:
    data = {"UpperDir": "/top", "LowerDir": "/middle:/bottom", "MergedDir": "/all"}
    driver = {"Name": "overlay2", "Data": data}
    assert image("a", ["1", "2", "3"], driver).folders == ["/bottom", "/middle", "/top"]
    assert image("a", ["1"], {"Name": "overlay2", "Data": {"UpperDir": "/top"}}).folders == ["/top"]
    # Not to be trusted, or not there.
    assert image("a", ["1", "2"], driver).folders == []
    assert image("a", ["1", "2", "3"], {**driver, "Name": "zfs"}).folders == []
    assert image("a", ["1", "2", "3"], {"Name": "overlayfs", "Data": None}).folders == []
    assert image("a", ["1", "2", "3"], None).folders == []


def test_search_argv() -> None:
    argv = search_argv("sha256:1", "name", ["/var/lib/docker/overlay2/a/diff"])
    assert argv[-3:] == ["sha256:1", "-c", imagescan.SCRIPT]
    mount = 'type=bind,"source=/var/lib/docker/overlay2/a/diff",target=/layers/0,readonly'
    assert argv[argv.index("--mount") + 1] == mount
    for option in ("--interactive", "--read-only"):
        assert option in argv
    for option, value in (("--network", "none"), ("--cap-drop", "ALL"), ("--entrypoint", "/bin/sh")):
        assert argv[argv.index(option) + 1] == value
    assert "hunter2" not in " ".join(argv)


def test_what_the_container_prints() -> None:
    output = "./0/etc/a\nb\x0012:hunter2-hunter2\n./0/etc/a\nb\x0040:hunter2-hunter2\n"
    output += "./1/x\x007:aHVudGVyMi1odW50ZXIy\n\0\n./1/a hunter2-hunter2\0\0\n./1/link\0/to/hunter2-hunter2\0\n"
    assert list(imagescan._parse(output, Needles(SECRETS))) == [
        (0, "/etc/a\nb", Find(", byte 12", "secrets.token", "as it is")),
        (1, "/x", Find(", byte 7", "secrets.token", "in base64")),
        (1, "/a hunter2-hunter2", Find(", its name", "secrets.token", "as it is")),
        (1, "/link", Find(", its target of the link", "secrets.token", "as it is")),
    ]
    assert list(imagescan._parse("\0\n", Needles(SECRETS))) == []


def tar(members: dict[str, bytes | str]) -> bytes:
    """An archive of files, and links where the content is a text."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return target.getvalue()


LAYER = tar({"etc/token": b"x hunter2-hunter2", "etc/link": "/to/hunter2-hunter2", "etc/hunter2-hunter2": b""})


@pytest.mark.parametrize("packed", [LAYER, gzip.compress(LAYER), zstd.compress(LAYER)])
@pytest.mark.parametrize(
    "paths",
    [
        ("blobs/sha256/config", "blobs/sha256/a", "blobs/sha256/b"),  # Docker 25 and later
        ("config.json", "a/layer.tar", "b/layer.tar"),  # before
    ],
)
def test_layers_out_of_docker_save(paths: tuple[str, str, str], packed: bytes) -> None:
    config, first, second = paths
    manifest = [{"Config": config, "RepoTags": None, "Layers": [first, second]}]
    described = {"rootfs": {"diff_ids": ["sha256:one", "sha256:two"]}}
    members: dict[str, bytes | str] = {
        first: tar({"{a}": b"nothing"}),
        second: packed,
        "VERSION": b"1.0",
        config: json.dumps(described).encode(),
        "manifest.json": json.dumps(manifest).encode(),
    }
    looked_for = Needles(SECRETS)
    expected = [
        ("sha256:two", "/etc/token", Find(", byte 2", "secrets.token", "as it is")),
        ("sha256:two", "/etc/link", Find(", its target of the link", "secrets.token", "as it is")),
        ("sha256:two", "/etc/hunter2-hunter2", Find(", its name", "secrets.token", "as it is")),
    ]
    assert list(search_archive(io.BytesIO(tar(members)), set(), looked_for)) == expected
    passed_over = list(search_archive(io.BytesIO(tar(members)), {"sha256:b"}, looked_for))
    assert passed_over == ([] if second.endswith("/b") else expected)
    # The same layer twice is there once, and a link.
    members[first] = f"../{second}" if "layer.tar" in second else "b"
    found = [digest for digest, _, _ in search_archive(io.BytesIO(tar(members)), set(), looked_for)]
    assert found == ["sha256:one"] * 3
