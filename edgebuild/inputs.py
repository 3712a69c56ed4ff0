"""The repository's own files that go into images and ISO: found and checked before anything is built."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from edgebuild.archives import archive_problems
from edgebuild.errors import InputError
from edgebuild.layers import no_text, shortened
from edgebuild.links import leads_out
from edgebuild.model import Environment

HARDWARE_SPECS = "etc/spectrocloud/custom-hardware-specs-lookup.json"


@dataclass(frozen=True)
class Inputs:
    """Paths are relative to the repository. `certificates` are PEM files, `content` are bundles."""

    certificates: tuple[str, ...] = ()
    overlay: tuple[str, ...] = ()  # files below overlay/files
    overlay_iso: tuple[str, ...] = ()  # files below overlay/files-iso
    content: tuple[str, ...] = ()
    cluster_definition: str = ""

    @property
    def overlay_etc(self) -> bool:
        return any(path.startswith("etc/") for path in self.overlay)

    @property
    def hardware_specs(self) -> bool:
        return HARDWARE_SPECS in self.overlay


def find_inputs(root: Path, environment: Environment) -> Inputs:
    """Look at the repository's files. Raises one InputError with every problem."""
    problems: list[str] = []
    inputs = Inputs(
        certificates=_certificates(root, environment.certs, problems),
        overlay=_tree(root, "overlay/files", problems),
        overlay_iso=_tree(root, "overlay/files-iso", problems),
        content=_content(root, environment.iso.content, problems),
        cluster_definition=_cluster_definition(root, environment.iso.cluster_definition, problems),
    )
    if problems:
        raise InputError.from_problems(problems)
    return inputs


def _certificates(root: Path, folder: str, problems: list[str]) -> tuple[str, ...]:
    if not folder:
        return ()
    if not (root / folder).is_dir():
        problems.append(f"certs: the folder {folder} does not exist; make it, or name another")
        return ()
    if _outside(root, root / folder, folder, problems):
        return ()
    found = []
    for path in sorted((root / folder).iterdir()):
        if path.name.startswith(".") or path.is_dir():
            continue
        relative = path.relative_to(root).as_posix()
        if _bad_name(relative, problems) or _outside(root, path, relative, problems):
            continue
        if path.is_symlink() and path.readlink().is_absolute():
            problems.append(f"{relative}: the link must be relative; a build sees only the repository")
            continue
        try:
            if not stat.S_ISREG(path.stat().st_mode) or b"-----BEGIN CERTIFICATE-----" not in path.read_bytes():
                problems.append(f"{relative}: not a certificate in PEM form (-----BEGIN CERTIFICATE-----)")
        except OSError as error:
            problems.append(f"{relative}: cannot be read: {error.strerror}")
        found.append(relative)
    return tuple(found)


def _outside(root: Path, path: Path, shown: str, problems: list[str]) -> bool:
    """Whether a folder or file is a link to somewhere outside of the repository; then that is a problem."""
    try:
        outside = not path.resolve().is_relative_to(root.resolve())
    except RuntimeError:  # links in a circle: reading it says so
        return False
    if outside:
        problems.append(f"{shown}: the link leads out of the repository")
    return outside


def _bad_name(name: str, problems: list[str]) -> bool:
    if problem := no_text(name) or ("a name with a line end" if "\n" in name else ""):
        problems.append(f"{name!a}: {problem.replace('the text', 'the name')}")
    return bool(problem)


def _tree(root: Path, folder: str, problems: list[str]) -> tuple[str, ...]:
    """Files and links below an overlay folder. A link may not lead out of the tree that the overlay becomes."""
    found: list[str] = []
    links: dict[str, str] = {}
    if _outside(root, root / folder, folder, problems):
        return ()
    for directory, folders, files in os.walk(root / folder):
        for name in [*files, *(each for each in folders if (Path(directory) / each).is_symlink())]:
            path = Path(directory) / name
            relative = path.relative_to(root / folder).as_posix()
            if name == ".gitkeep" or _bad_name(f"{folder}/{relative}", problems):
                continue
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                links[relative] = str(path.readlink())
            elif not stat.S_ISREG(mode):
                problems.append(f"{folder}/{relative}: neither file, folder nor link")
            elif not os.access(path, os.R_OK):
                problems.append(f"{folder}/{relative}: cannot be read: Permission denied")
            found.append(relative)
    for link, target in sorted(links.items()):
        if leads_out(link, links, rooted=True):
            problems.append(f"{folder}/{link}: the link leads to {shortened(target)}, out of the overlay")
    return tuple(sorted(found))


def _content(root: Path, patterns: tuple[str, ...], problems: list[str]) -> tuple[str, ...]:
    found: set[str] = set()
    for pattern in patterns:
        try:
            matches = sorted(path for path in root.glob(pattern) if path.is_file())
        except (ValueError, IndexError, NotImplementedError):
            problems.append(f"iso.content: {pattern!r} is no pattern of file names")
            continue
        if not matches and not any(character in pattern for character in "*?["):
            problems.append(f"iso.content: {pattern} does not exist")
        found.update(path.relative_to(root).as_posix() for path in matches)
    names: dict[str, str] = {}
    for path in sorted(found):
        if _bad_name(path, problems):
            continue
        other = names.setdefault(Path(path).name, path)
        if other != path:
            problems.append(f"iso.content: {other} and {path} would have the same name on the ISO")
        if path.endswith(".tar"):
            _archive(root, path, problems, compressed=False)
    return tuple(sorted(found))


def _cluster_definition(root: Path, path: str, problems: list[str]) -> str:
    if path and not (root / path).is_file():
        problems.append(f"iso.cluster_definition: {path} does not exist")
    elif path:
        _archive(root, path, problems, compressed=True)
    return path


def _archive(root: Path, path: str, problems: list[str], *, compressed: bool) -> None:
    problems += [f"{path}: {problem}" for problem in archive_problems(root / path, compressed=compressed)]
