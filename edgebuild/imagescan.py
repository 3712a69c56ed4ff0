"""Looking for secrets in images: every layer, also what later ones delete, configuration and history.

Layers are searched where the engine keeps them, by grep in a container of ours; an engine that does not tell where
hands them out with `docker save`.
"""

import io
import json
import os
import posixpath
import re
import subprocess
import tarfile
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from edgebuild.container import container_argv
from edgebuild.errors import ToolError
from edgebuild.needles import Find, Needles, places
from edgebuild.run import process, run

ZSTD, GZIP = b"\x28\xb5\x2f\xfd", b"\x1f\x8b"
# Patterns come in by standard input, and stay in memory: arguments and files could be read by others.
SCRIPT = r"""
set -eu
umask 077
cat > /tmp/patterns
export LC_ALL=C
cd /layers
find . -type f -size +0 -print0 | xargs -0 -r -n 400 -P "$(nproc)" \
    sh -c 'grep -a -o -b -H -Z -E --line-buffered -m 20 -f /tmp/patterns -- "$@" || [ $? -eq 1 ]' sh
printf '\0\n'
find . -mindepth 2 -printf '%p\0%l\0\n' | grep -a -E -f /tmp/patterns || [ $? -eq 1 ]
"""


@dataclass(frozen=True)
class Image:
    """One image as the engine knows it; `name` is for people."""

    name: str
    id: str
    facts: Mapping[str, Any]

    @property
    def shown(self) -> str:
        """Its name, and the id: the name may still lead to what was built before."""
        return f"{self.name} ({self.id.removeprefix('sha256:')[:12]})"

    @property
    def layers(self) -> list[str]:
        """Digests of the layers' content (diff ids), lowest first."""
        return list((self.facts.get("RootFS") or {}).get("Layers") or [])

    @property
    def folders(self) -> list[str]:
        """Where the engine keeps each of the layers; nothing when it does not tell."""
        driver = self.facts.get("GraphDriver") or {}
        data = driver.get("Data") or {}
        if driver.get("Name") != "overlay2" or "UpperDir" not in data:
            return []
        found = [data["UpperDir"], *filter(None, data.get("LowerDir", "").split(":"))]
        return found[::-1] if len(found) == len(self.layers) else []


def inspect(names: Mapping[str, str]) -> list[Image]:
    """The images with these ids, by name. One call."""
    if not names:
        return []
    facts = json.loads(run(["docker", "image", "inspect", *names.values()]).stdout)
    return [Image(name, id_, each) for (name, id_), each in zip(names.items(), facts, strict=True)]


def search_configuration(image: Image, needles: Needles) -> Iterator[Find]:
    """Environment, labels, commands and history of an image."""
    history = run(["docker", "history", "--no-trunc", "--format", "{{json .}}", image.id]).stdout.splitlines()
    for number, line in enumerate(reversed(history), 1):
        yield from _search_values(json.loads(line), f"image {image.shown}, history entry {number}", needles)
    facts = {name: value for name, value in image.facts.items() if name != "GraphDriver"}
    yield from _search_values(facts, f"image {image.shown}, configuration", needles)


def _search_values(value: Any, where: str, needles: Needles) -> Iterator[Find]:
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _search_values(name, f"{where}, a name", needles)
            yield from _search_values(part, f"{where}, {name}", needles)
    elif isinstance(value, list):
        for number, part in enumerate(value, 1):
            yield from _search_values(part, f"{where} {number}", needles)
    elif isinstance(value, str):
        yield from places(needles.search(value.encode(errors="replace")), where)


def search_layers(images: Sequence[Image], digests: Sequence[str], needles: Needles) -> Iterator[Find]:
    """These layers of the images, wherever the engine keeps them."""
    folders = {
        digest: folder for image in images for digest, folder in zip(image.layers, image.folders, strict=False)
    }
    found = None
    if set(digests) <= folders.keys():
        found = _search_in_place([folders[digest] for digest in digests], needles, images)
    if found is None:
        yield from _search_saved(images, digests, needles)
        return
    for number, path, hit in found:
        yield _find(images, digests[number], path, hit)


def _find(images: Sequence[Image], digest: str, path: str, find: Find) -> Find:
    """The find with image, number and digest of its layer; the lowest image says enough, as others share it."""
    users = [image for image in images if digest in image.layers]
    number, count = users[0].layers.index(digest) + 1, len(users[0].layers)
    others = f" and {len(users) - 1} more" if len(users) > 1 else ""
    where = f"image {users[0].shown}{others}, layer {number} of {count} ({digest}), {path}{find.where}"
    return Find(where, find.key, find.form)


def search_argv(image: str, name: str, folders: Sequence[str]) -> list[str]:
    """The container around grep. It reads files of every owner, and can change none: all mounts are read-only."""
    options = ["--interactive", "--user", "0:0", "--cap-add", "DAC_READ_SEARCH", "--entrypoint", "/bin/sh"]
    read = {f"/layers/{number}": Path(folder) for number, folder in enumerate(folders)}
    return container_argv(image, ["-c", SCRIPT], name=name, read=read, options=options)


def _search_in_place(
    folders: Sequence[str], needles: Needles, images: Sequence[Image]
) -> list[tuple[int, str, Find]] | None:
    """Number of the folder, path in it, find; None when no image of ours has the programs for it."""
    for image in images[::-1]:  # the boot tree, made with tools, comes last
        name = f"edgebuild-scan-{uuid.uuid4().hex[:12]}"
        try:
            result = run(search_argv(image.id, name, folders), stdin=needles.patterns, check=False)
        except BaseException:
            run(["docker", "rm", "--force", name], check=False)
            raise
        if result.returncode == 0:
            return list(_parse(result.stdout, needles))
    return None


def _parse(output: str, needles: Needles) -> Iterator[tuple[int, str, Find]]:
    """What SCRIPT prints: `path NUL offset:match` for content, a NUL, `path NUL link NUL` for names."""
    contents, _, names = output.partition("\0\n")
    seen = set()
    for path, offset, text in re.findall(r"([^\0]*)\0(\d+):([^\n]*)\n", contents):
        number, _, inside = path.removeprefix("./").partition("/")
        for find in places(needles.search(text.encode()), ""):
            if (path, find.key, find.form) not in seen:
                seen.add((path, find.key, find.form))
                yield int(number), f"/{inside}", Find(f", byte {offset}", find.key, find.form)
    for path, link in re.findall(r"([^\0]*)\0([^\0]*)\0\n", names):
        number, _, inside = path.removeprefix("./").partition("/")
        for part, text in (("name", inside), ("target of the link", link)):
            for find in places(needles.search(text.encode()), ""):
                yield int(number), f"/{inside}", Find(f", its {part}", find.key, find.form)


def _search_saved(images: Sequence[Image], digests: Sequence[str], needles: Needles) -> Iterator[Find]:
    known = {digest for image in images for digest in image.layers} - set(digests)
    argv = ["docker", "save", *dict.fromkeys(image.id for image in images)]
    with process(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as child:
        try:
            found = list(search_archive(cast(IO[bytes], child.stdout), known, needles))
        except Exception as error:  # a stream that ends early makes the libraries fail in any way
            raise ToolError(f"the engine does not hand out its images: {error}", hint="./inv doctor") from error
    for digest, path, find in found:
        yield _find(images, digest, path, find)


def search_archive(stream: IO[bytes], known: Collection[str], needles: Needles) -> Iterator[tuple[str, str, Find]]:
    """Digest of the layer, path in it and find, out of what `docker save` writes: in any layout and compression.

    Layers in `known` are passed over where their name tells what they are.
    """
    found: dict[str, list[tuple[str, Find]]] = {}
    texts: dict[str, Any] = {}
    same: dict[str, str] = {}
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            if member.issym():
                folder = posixpath.dirname(member.name)
                same[member.name] = posixpath.normpath(posixpath.join(folder, member.linkname))
            content = archive.extractfile(member) if member.isfile() else None
            if content is None or f"sha256:{posixpath.basename(member.name)}" in known:
                continue
            blob = io.BufferedReader(cast(io.RawIOBase, content))
            start = blob.peek(tarfile.BLOCKSIZE)
            if start[257:262] == b"ustar" or start.startswith((GZIP, ZSTD)):
                found[member.name] = list(_search_tar(blob, needles))
            elif start.startswith((b"{", b"[")):
                texts[member.name] = json.loads(blob.read())
    for entry in texts["manifest.json"]:
        for path, digest in zip(entry["Layers"], texts[entry["Config"]]["rootfs"]["diff_ids"], strict=True):
            for inside, find in found.pop(same.get(path, path), []):
                yield digest, inside, find


def _search_tar(blob: Any, needles: Needles) -> Iterator[tuple[str, Find]]:
    """Path and find of everything in a layer."""
    stream = blob
    if blob.peek(4)[:4] == ZSTD:
        from backports.zstd import ZstdFile

        stream = ZstdFile(blob)
    with tarfile.open(fileobj=stream, mode="r|*") as archive:
        for member in archive:
            path = "/" + member.name.removeprefix("./")
            for part, text in (("name", member.name), ("target of the link", member.linkname)):
                for find in places(needles.search(os.fsencode(text)), ""):
                    yield path, Find(f", its {part}", find.key, find.form)
            if member.isreg() and (content := archive.extractfile(member)):
                for find in places(needles.search_file(content), ""):
                    yield path, find


def search_cache(builder: str, needles: Needles, say: Callable[[str], None]) -> Iterator[Find]:
    """What the builder notes about the records of its cache: the commands that made them."""
    result = run(["docker", "buildx", "du", "--verbose", *(["--builder", builder] if builder else [])], check=False)
    if result.returncode:
        say("note: this builder does not tell what its cache holds; secrets were not looked for there")
    for record in re.split(r"^(?=ID:\s)", result.stdout, flags=re.MULTILINE):
        name = record.partition("\n")[0].removeprefix("ID:").strip()
        for find in places(needles.search(record.encode()), ""):
            yield Find(f"build cache, record {name}", find.key, find.form)
