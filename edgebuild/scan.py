"""The scan after every build: each resolved secret is looked for in all that was made. A find is an error."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgebuild import secrets
from edgebuild.errors import VerificationError
from edgebuild.imagescan import Image, inspect, search_cache, search_configuration, search_layers
from edgebuild.isofile import read_iso
from edgebuild.keyed import Keyed
from edgebuild.needles import Find, Needles, places
from edgebuild.report import count
from edgebuild.results import Artifact
from edgebuild.session import Prepared, Session
from edgebuild.structure import USER_DATA

# Of the ISO: these are files of the boot tree, an image whose layers are searched; content comes from elsewhere.
SEARCHED_AS_LAYERS = ("/rootfs.squashfs", "/boot/kernel", "/boot/initrd", "EFI system partition")
FROM_ELSEWHERE = ("/opt/spectrocloud/content/", "/opt/spectrocloud/clusterconfig/")
LARGE_FILE = 64 << 20
KEPT_SETS, KEPT_NAMES = 8, 5000
SHOWN = 40


class Memory:
    """What was searched for the same secrets before, and is never changed: layers, images and ISOs, by digest.

    The file tells nothing about the secrets: `tag`, which stands for them in it, is a keyed hash.
    """

    def __init__(self, folder: Path, tag: str) -> None:
        self._folder, self._file, self._tag = folder, folder / "searched.json", tag
        self.known = set(self._read().get(tag, []))

    def add(self, names: Iterable[str]) -> None:
        """Remember these too; appears whole or not at all."""
        before = self._read()
        own = list(dict.fromkeys([*before.pop(self._tag, []), *names]))[-KEPT_NAMES:]
        entries = dict([*before.items(), (self._tag, own)][-KEPT_SETS:])
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = self._file.with_name(f".searched-{os.getpid()}")
        partial.unlink(missing_ok=True)
        partial.touch(mode=0o600)
        partial.write_text(json.dumps(entries) + "\n", encoding="utf-8")
        partial.replace(self._file)

    def _read(self) -> dict[str, list[str]]:
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
            return {tag: [str(name) for name in names] for tag, names in found.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}  # then everything is searched again


def search_set(session: Session, prepared: Prepared, folder: Path, built: Sequence[Artifact]) -> str:
    """Look for every secret of this process in the images `built`, their cache, the logs, the set of `folder`.

    Returns the report's line; nothing for an environment without secrets. Raises VerificationError that names every
    place. Nothing is deleted.
    """
    if not secrets.hidden.values:
        named = any(reference for _, reference in session.environment.secrets)
        return "none is set here, and none was looked for" if named else ""
    needles = Needles(secrets.hidden.values)
    for key in needles.too_short:
        session.say(
            f"note: {key} is shorter than 8 characters: it stands everywhere by chance, and is not looked for"
        )
    if not needles.keys:
        return "too short to be looked for"
    images = inspect({each.reference: each.digest or each.reference for each in built if each.reference})
    tag = Keyed(session.root).digest(needles.patterns.encode())
    memory = Memory(session.root / "build/.cache/scan", tag)
    layers = list(dict.fromkeys(digest for image in images for digest in image.layers))
    new_layers = [digest for digest in layers if digest not in memory.known]
    new_images = [image for image in images if image.id not in memory.known]
    isos = {file: _digest(file) for file in sorted(folder.glob("*.iso"))}
    files = _files(session, folder)
    with ThreadPoolExecutor() as pool:
        # Programs of the engine, side by side.
        cache = pool.submit(lambda: list(search_cache(session.environment.builder, needles, session.say)))
        configurations = [
            pool.submit(lambda each: list(search_configuration(each, needles)), one) for one in new_images
        ]
        finds = list(_search_files(files, needles))
        for iso, digest in isos.items():
            if digest not in memory.known:
                shown = session.plan.iso.path or iso.name
                finds += _search_iso(iso, shown, needles, overlay=session.root / "overlay/files-iso")
        if new_layers:
            session.say(f"looking for secrets in {count(len(new_layers), 'layer')}")
            finds += search_layers(images, new_layers, needles)
        for each in (cache, *configurations):
            finds += each.result()
    if finds:
        raise _error(session, finds)
    memory.add([*new_layers, *(image.id for image in new_images), *isos.values()])
    return _line(session, prepared, needles, images, len(layers), len(files) + len(isos), list(isos))


def _files(session: Session, folder: Path) -> dict[str, Path]:
    """Name for people to path: the new set, the logs, and what they are made from."""
    root, name = session.root, session.plan.environment
    found = {f"build/{name}/{path.relative_to(folder)}": path for path in sorted(folder.rglob("*")) if path.is_file()}
    found = {shown: path for shown, path in found.items() if path.suffix != ".iso"}
    others = [*session.results.logs.glob("*.log"), *(session.results.folder / "boot").glob("*.log")]
    others += [root / f"config/{name}.yaml", root / "Dockerfile.j2", root / "user-data.j2"]
    return {**found, **{str(path.relative_to(root)): path for path in sorted(others)}}


def _search_files(files: Mapping[str, Path], needles: Needles) -> Iterator[Find]:
    for name, path in files.items():
        if path.stat().st_size > LARGE_FILE:
            with path.open("rb") as file:
                yield from places(needles.search_file(file), name)
        else:
            data = path.read_bytes()
            yield from places(needles.search(data), name, data)


def _search_iso(path: Path, shown: str, needles: Needles, *, overlay: Path) -> Iterator[Find]:
    """Everything on the ISO but user-data, for which it is made, and what is searched elsewhere."""
    with path.open("rb") as file:
        for region in read_iso(path).regions:
            elsewhere = region.name in SEARCHED_AS_LAYERS or region.name.startswith(FROM_ELSEWHERE)
            if region.name == USER_DATA or (elsewhere and not (overlay / region.name.lstrip("/")).is_file()):
                continue
            file.seek(region.offset)
            yield from places(needles.search_file(file, region.length), f"{shown}, {region.name}")


def _digest(iso: Path) -> str:
    """As the checksum file has it: it was written with the ISO."""
    return "sha256:" + iso.with_name(iso.name + ".sha256").read_text(encoding="ascii").split()[0]


def _error(session: Session, finds: Sequence[Find]) -> VerificationError:
    lines = [f"\n  {find.key}, {find.form}: {find.where}" for find in sorted(set(finds))]
    more = f"\n  and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return VerificationError(
        f"a secret stands where it must not, in {count(len(lines), 'place')}:{''.join(lines[:SHOWN])}{more}\n"
        "  nothing was deleted, and nothing pushed: the images are in the engine, under their ids; "
        f"build/{session.plan.environment}/ holds the last complete set",
        hint="take it out there, build again, and have the secret changed; the engine's cache keeps it until "
        "`docker builder prune`. A word that stands in the packages themselves is no secret: choose another",
    )


def _line(
    session: Session,
    prepared: Prepared,
    needles: Needles,
    images: Sequence[Image],
    layers: int,
    files: int,
    isos: Sequence[Path],
) -> str:
    """What was searched, and the one place where a secret belongs."""
    references = {f"secrets.{name}": reference for name, reference in session.environment.secrets}
    on_iso = [key for key in needles.keys if isos and f"<{references.get(key)}>" in prepared.texts["user-data"]]
    nowhere = [key.removeprefix("secrets.") for key in needles.keys if key not in on_iso]
    mode = f"{isos[0].stat().st_mode & 0o777:04o}" if isos else ""
    parts = [
        f"{key.removeprefix('secrets.')} stands in the user-data on the ISO (mode {mode}) and nowhere else"
        for key in on_iso
    ]
    parts += [f"{' and '.join(nowhere)} {'stand' if len(nowhere) > 1 else 'stands'} nowhere"] if nowhere else []
    searched = f"{count(len(images), 'image')}, {count(layers, 'layer')}, {count(files, 'file')}"
    return f"{'; '.join(parts)}; {searched} searched"
