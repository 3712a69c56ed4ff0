"""SHA256SUMS: the checksums of every file of a result set, as `sha256sum -c` reads them."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgebuild.errors import VerificationError

NAME = "SHA256SUMS"
SIGNATURE = f"{NAME}.sig"
OWN = (NAME, SIGNATURE)


def write(folder: Path, known: Mapping[str, str]) -> None:
    """Write the checksums of all files below `folder`; `known` holds those (SHA-256 in hex) that need no reading."""
    lines = [f"{known.get(name) or digest(folder / name)}  {name}\n" for name in _names(folder)]
    (folder / NAME).unlink(missing_ok=True)  # it may be a link to the last set's
    (folder / NAME).write_text("".join(lines), encoding="utf-8")


def read(folder: Path) -> dict[str, str]:
    """Name to SHA-256 in hex; nothing when there is no such file. Raises VerificationError when it is damaged."""
    found = {}
    try:
        lines = (folder / NAME).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError as error:
        raise VerificationError(f"{NAME}: not text: it was changed") from error
    for number, line in enumerate(lines, 1):
        digest, gap, name = line[:64], line[64:66], line[66:]
        if gap != "  " or not name or set(digest) - set("0123456789abcdef"):
            raise VerificationError(f"{NAME}: line {number} is damaged")
        found[name] = digest
    return found


def problems(folder: Path, *, known: Mapping[str, str]) -> Iterator[str]:
    """What differs from SHA256SUMS; `known` holds the checksums of files that were just read."""
    try:
        written = read(folder)
    except VerificationError as error:
        yield error.message
        return
    if not written:
        yield f"{NAME}: is missing"
        return
    names = set(_names(folder))
    for name in sorted(written.keys() | names):
        if name not in names:
            yield f"{name}: is missing"
        elif name not in written:
            yield f"{name}: is not in {NAME}"
        elif (known.get(name) or digest(folder / name)) != written[name]:
            yield f"{name}: is not what was built: its checksum differs"


def _names(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(name for path in files if (name := path.relative_to(folder).as_posix()) not in OWN)


def digest_of(data: bytes) -> str:
    """`sha256:` and the hash in hex."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
