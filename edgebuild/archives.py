"""Archives that go onto the ISO: read as far as their members' names, and never unpacked here."""

import tarfile
from pathlib import Path
from typing import IO, Any

from edgebuild.links import leads_out

MAX_UNPACKED = 4 * 10**9  # bytes that a compressed archive may claim to hold
MAX_PROBLEMS = 10
BLOCK = 512
MAX_NAME = 1 << 20
NAME_TYPES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE)
CHUNK = 1 << 20


class _Member(tarfile.TarInfo):
    """A member whose name is no longer than a path can be: tarfile reads names into memory, whatever their size."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        if self.type in NAME_TYPES and self.size > MAX_NAME:
            raise tarfile.ReadError("a member's name is too long")
        return super()._proc_member(archive)  # type: ignore[misc]


def archive_problems(path: Path, *, compressed: bool) -> list[str]:
    """What is wrong with a tar archive: broken, or with members that would leave the folder it is unpacked in.

    An archive that is not `compressed` is not read through: only its headers are.
    """
    links: dict[str, str] = {}
    problems: list[str] = []
    try:
        with tarfile.open(path, "r:*" if compressed else "r:", tarinfo=_Member) as archive:
            size = 0
            while member := archive.next():
                archive.members = []  # type: ignore[attr-defined]  # a bundle may have millions
                problems += _member_problems(member)
                if member.issym():
                    links[_plain(member.name)] = member.linkname
                size += member.size
                if compressed and size > MAX_UNPACKED:
                    return [*problems, f"unpacks to more than {MAX_UNPACKED / 1e9:.0f} GB"]
            if _goes_on(archive, compressed=compressed):
                problems.append("a broken tar archive: something else follows its last member")
    except Exception as error:  # whatever a broken archive makes of zlib, lzma, numbers and text
        reason = str(error).splitlines()[-1] if str(error) else type(error).__name__
        kind = "tar archive" if compressed else "uncompressed tar archive"
        return [*problems[:MAX_PROBLEMS], f"no {kind}, or a broken one: {reason}"]
    problems += [
        f"the link {name!a} leads out of the archive, to {target!a}"
        for name, target in links.items()
        if leads_out(name, links, rooted=False)
    ]
    return problems[:MAX_PROBLEMS]


def _member_problems(member: tarfile.TarInfo) -> list[str]:
    shown = ascii(member.name)
    if member.name.startswith("/") or ".." in member.name.split("/"):
        return [f"the member {shown} would be unpacked outside of its folder"]
    if "\0" in member.name or (not _plain(member.name) and not member.isdir()):
        return [f"the member {shown} has no proper name"]
    if member.islnk() and (member.linkname.startswith("/") or ".." in member.linkname.split("/")):
        return [f"the link {shown} leads out of the archive, to {member.linkname!a}"]
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        return [f"the member {shown} is neither file, folder nor link"]
    return []


def _plain(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _goes_on(archive: tarfile.TarFile, *, compressed: bool) -> bool:
    """Whether the archive's end is none: tarfile takes a broken header for one. Reads compressed data to its end."""
    file: IO[bytes] = archive.fileobj  # type: ignore[assignment]
    file.seek(archive.offset)
    if file.read(BLOCK).strip(b"\0"):
        return True
    left = MAX_UNPACKED if compressed else 0
    while left > 0 and (data := file.read(CHUNK)):
        left -= len(data)
    return False
