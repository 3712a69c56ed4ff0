"""What must hold before anything is shown or leaves: images and ISO are checked as soon as they are built."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgebuild import sbom
from edgebuild.container import image_argv
from edgebuild.errors import VerificationError
from edgebuild.imagecheck import FACTS, INITRD, image_problems, initrd_problems, parse_facts
from edgebuild.iso import (
    CLUSTER_DEFINITION,
    CONTENT_FOLDER,
    LABEL,
    IsoRequest,
    IsoResult,
    content_parts,
    overlay_files,
)
from edgebuild.isofile import AREA_DIRECTORIES, AREA_PADDING, Iso, Region, digest, read_iso
from edgebuild.results import Artifact
from edgebuild.run import CommandFailed, run
from edgebuild.session import Session
from edgebuild.structure import MENU, USER_DATA, Expected, check_iso, site_problems
from edgebuild.values import OS_FAMILIES

AT_ONCE = 2  # most of a check is waiting for a container
OS_KINDS = ("base-image", "provider-image", "installer-image")
BLOCK_SIZE = 1 << 20
COMPRESSORS = {"fast": "zstd", "small": "zstd", "smallest": "xz"}
PATCHED = "boot/eltorito.img"  # xorriso writes its own position into it
INVENTORY = "== inventory"
SCRIPT = f"{FACTS}\necho '{INVENTORY}'\n{sbom.INVENTORY}"
LEFT_OUT = ("boot/boot_hybrid.img",)  # becomes the boot record


@contextlib.contextmanager
def early_checks() -> Iterator[Callable[[Session, str], object]]:
    """What takes images to check while others are still built: `check_images` then finds that they have passed.

    What is wrong with one is left for that to find, and to tell.
    """
    pool = ThreadPoolExecutor(max_workers=AT_ONCE)
    try:
        yield lambda session, digest: pool.submit(_problems, session, digest)
        pool.shutdown()
    finally:
        pool.shutdown(cancel_futures=True)


def check_images(session: Session, artifacts: Sequence[Artifact]) -> None:
    """Check every OS image among these. Raises VerificationError that names every problem of every image."""
    if problems := images_problems(session, artifacts):
        raise VerificationError(
            "not fit for a host:\n  " + "\n  ".join(problems),
            hint="earlier results are as they were; look at os.base_image, overlay/ and your lines of Dockerfile.j2",
        )


def images_problems(session: Session, artifacts: Sequence[Artifact]) -> list[str]:
    """Everything wrong with the OS images among these. What has passed before is not looked at again."""
    records = session.results.records
    images = [each for each in artifacts if each.kind in OS_KINDS and not records.get("images", each.digest)]
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        found = list(pool.map(lambda image: _problems(session, image.digest), images))
    return [f"{image.name}: {problem}" for image, own in zip(images, found, strict=True) for problem in own]


def _problems(session: Session, digest: str) -> list[str]:
    kairos = not session.environment.os.bootstrap
    try:
        printed, _, inventory = run(image_argv(digest, SCRIPT)).stdout.partition(f"{INVENTORY}\n")
        facts = parse_facts(printed)
    except CommandFailed as error:
        return [f"no shell runs in it: {error.result.stderr.strip().rpartition(chr(10))[2]}"]
    problems = image_problems(facts, kairos=kairos, family=OS_FAMILIES[session.environment.os.distribution])
    if not problems:
        # Provider images have the initrd of the base; one look is enough.
        known = session.results.records.get("initrds", facts.initrd_sha256)
        if not known:
            listing = run(image_argv(digest, INITRD), check=False).stdout.splitlines()
            problems = initrd_problems(listing, kairos=kairos)
            if not problems:
                session.results.records.add("initrds", facts.initrd_sha256)
    if not problems:
        key = hashlib.sha256(inventory.encode()).hexdigest()
        session.results.records.add("inventories", key, text=inventory)
        session.results.records.add("images", digest, inventory=key)
    return problems


def check_iso_of(session: Session, request: IsoRequest, result: IsoResult) -> dict[str, Any]:
    """Check an ISO that was just written against all that it was made from.

    Returns what artifacts.json keeps of it: `contents` and `asked`. Raises DamagedBootTree, VerificationError.
    """
    iso = read_iso(result.path)
    compressor = COMPRESSORS[session.environment.iso.compression]
    expected = Expected(arch=request.arch, label=LABEL, compressor=compressor, block_size=BLOCK_SIZE)
    contents = _contents(result.path, iso)
    found = {part["name"]: part["sha256"] for part in contents}
    tree = _tree_files(request, result)
    damaged = [name for name, wanted in tree.items() if found.get(name, "") != wanted]
    if damaged:
        raise DamagedBootTree(
            "the boot tree in the engine is damaged: " + ", ".join(sorted(damaged)), hint="build again"
        )
    problems = check_iso(result.path, iso, expected)
    problems += [
        f"{name}: {'other content than it was made from' if name in found else 'missing'}"
        for name, wanted in _site_files(request).items()
        if found.get(name, "") != wanted
    ]
    _raise(result.path, problems)
    asked = {name: value for name, value in asdict(expected).items() if value}
    return {"contents": contents, "asked": asked}


def check_respun(
    path: Path, last: Artifact, changed: Mapping[str, tuple[int, str]], *, moved: bool
) -> dict[str, Any]:
    """Check an ISO that is the `last` one, byte for byte, but for what is `changed`: path to length and SHA-256.

    With `moved` its directories are read again: a length is another. Returns and raises what `check_iso_of` does.
    """
    contents = [dict(part) for part in last.contents or ()]
    for part in contents:
        part["length"], part["sha256"] = changed.get(part["name"], (part["length"], part["sha256"]))
    if moved:
        iso = read_iso(path)
        areas = [each for each in iso.regions if each.name == AREA_DIRECTORIES]
        for part in contents:
            part["sha256"] = digest(path, areas) if part["name"] == AREA_DIRECTORIES else part["sha256"]
    else:
        regions = [Region(part["offset"], part["length"], part["name"]) for part in contents]
        iso = Iso(last.size_bytes, LABEL, tuple(regions), {each.name: (each,) for each in regions}, (), (), ())
    lengths = {name: sum(each.length for each in parts) for name, parts in iso.files.items()}
    problems = [
        f"{part['name']}: its directory entry is damaged"
        for part in contents
        if part["name"].startswith("/") and lengths.get(part["name"]) != part["length"]
    ]
    problems += [
        f"{name}: other content than it was made from"
        for name, (_, wanted) in changed.items()
        if digest(path, iso.files.get(name, ())) != wanted
    ]
    problems += [*iso.problems, *site_problems(path, iso, Expected(**(last.asked or {})))]
    _raise(path, problems)
    return {"contents": contents, "asked": dict(last.asked or {})}


def _raise(path: Path, problems: Sequence[str]) -> None:
    if problems:
        raise VerificationError(
            f"{path.name} is not what it should be:\n  " + "\n  ".join(problems), hint="the earlier ISO is as it was"
        )


class DamagedBootTree(VerificationError):
    """What the engine has stored is not what was built."""


def _contents(path: Path, iso: Iso) -> list[dict[str, Any]]:
    """Every part of the ISO but padding, with its hash; the file is still in memory, so this costs no reading."""
    regions = [each for each in iso.regions if not each.name.startswith(AREA_PADDING)]
    names = list(dict.fromkeys(each.name for each in regions))
    grouped = {name: iso.files.get(name) or [each for each in regions if each.name == name] for name in names}
    grouped |= {name: parts for name, parts in iso.files.items() if name not in grouped}
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        hashes = list(pool.map(lambda parts: digest(path, parts), grouped.values()))
    return [
        {
            "name": name,
            "offset": parts[0].offset if parts else 0,
            "length": sum(each.length for each in parts),
            "sha256": sha256,
        }
        for (name, parts), sha256 in zip(grouped.items(), hashes, strict=True)
    ]


def _tree_files(request: IsoRequest, result: IsoResult) -> dict[str, str]:
    """The boot tree's files with their hashes, but for those that the site's files replace."""
    overlay = overlay_files(request)
    return {
        f"/{name}": sha256
        for name, sha256 in result.tree.items()
        if name != PATCHED and name not in LEFT_OUT and f"/{name}" not in overlay and f"/{name}" != MENU
    }


def _site_files(request: IsoRequest) -> dict[str, str]:
    """What the site's own files must be on the ISO, as hashes."""
    sources = {**overlay_files(request), USER_DATA: request.user_data}
    sources.setdefault(MENU, request.grub_cfg)
    if request.cluster_definition:
        sources[CLUSTER_DEFINITION] = request.cluster_definition
    found = {name: digest(path, [Region(0, path.stat().st_size, "")]) for name, path in sources.items()}
    for path in request.content:
        for number, (offset, length) in enumerate(content_parts(path.stat().st_size)):
            found[f"{CONTENT_FOLDER}/{path.name}_part{number:02d}"] = digest(path, [Region(offset, length, "")])
    return found
