"""The repository's own files that go into images and ISO: found and checked before anything is built."""

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgebuild.errors import InputError
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
        overlay=_tree(root / "overlay/files", problems),
        overlay_iso=_tree(root / "overlay/files-iso", problems),
        content=_content(root, environment.iso.content, problems),
        cluster_definition=_file(root, environment.iso.cluster_definition, "iso.cluster_definition", problems),
    )
    if problems:
        raise InputError.from_problems(problems)
    return inputs


def _certificates(root: Path, folder: str, problems: list[str]) -> tuple[str, ...]:
    if not (root / folder).is_dir():
        problems.append(f"certs: the folder {folder} does not exist; make it, or name another")
        return ()
    found = []
    for path in sorted((root / folder).iterdir()):
        if path.name.startswith(".") or path.is_dir():
            continue
        relative = path.relative_to(root).as_posix()
        try:
            if b"-----BEGIN CERTIFICATE-----" not in path.read_bytes():
                problems.append(f"{relative}: not a certificate in PEM form (-----BEGIN CERTIFICATE-----)")
        except OSError as error:
            problems.append(f"{relative}: cannot be read: {error.strerror}")
        found.append(relative)
    return tuple(found)


def _tree(folder: Path, problems: list[str]) -> tuple[str, ...]:
    """Files and links below an overlay folder. A link may not lead out of the tree that the overlay becomes."""
    found = []
    for directory, folders, files in os.walk(folder):
        for name in sorted([*files, *(each for each in folders if (Path(directory) / each).is_symlink())]):
            path = Path(directory) / name
            relative = path.relative_to(folder)
            if name == ".gitkeep":
                continue
            shown = f"{folder.parent.name}/{folder.name}/{relative}"
            if path.is_symlink() and _leaves(relative, str(path.readlink())):
                problems.append(f"{shown}: the link leads to {path.readlink()}, out of the overlay")
            elif not path.is_symlink() and not os.access(path, os.R_OK):
                problems.append(f"{shown}: cannot be read: Permission denied")
            found.append(relative.as_posix())
    return tuple(sorted(found))


def _leaves(link: Path, target: str) -> bool:
    """Whether `target`, seen from `link`, climbs above the tree's root. An absolute one starts at that root."""
    parts: list[str] = [] if target.startswith("/") else list(link.parent.parts)
    for part in PurePosixPath(target.lstrip("/")).parts:
        if part != "..":
            parts.append(part)
        elif parts:
            parts.pop()
        else:
            return True
    return False


def _content(root: Path, patterns: tuple[str, ...], problems: list[str]) -> tuple[str, ...]:
    found: set[str] = set()
    for pattern in patterns:
        matches = sorted(path for path in root.glob(pattern) if path.is_file())
        if not matches and not any(character in pattern for character in "*?["):
            problems.append(f"iso.content: {pattern} does not exist")
        found.update(path.relative_to(root).as_posix() for path in matches)
    names: dict[str, str] = {}
    for path in sorted(found):
        other = names.setdefault(Path(path).name, path)
        if other != path:
            problems.append(f"iso.content: {other} and {path} would have the same name on the ISO")
    return tuple(sorted(found))


def _file(root: Path, path: str, key: str, problems: list[str]) -> str:
    if path and not (root / path).is_file():
        problems.append(f"{key}: {path} does not exist")
    return path
