"""The ISOs that those of sites are copies of: complete but for the user-data, without any secret, and kept."""

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgebuild import gate, making, respin
from edgebuild.copying import Original
from edgebuild.inputs import Inputs
from edgebuild.iso import CidataRequest, IsoRequest, IsoResult, assemble, assemble_cidata
from edgebuild.isofile import read_iso
from edgebuild.materials import open_contents
from edgebuild.padding import padded
from edgebuild.session import Session
from edgebuild.structure import USER_DATA

RECORD = "originals"
HEAD = b"#cloud-config\n"


@dataclass(frozen=True)
class OriginalIso:
    """One ISO, opened; a site's user-data has its place at `offset`. `sha256` in hex, `size` in bytes."""

    path: Path
    sha256: str
    size: int
    offset: int
    source: Original


def original(session: Session, folder: Path, inputs: Inputs, image: str, menu: str, length: int) -> OriginalIso:
    """The installer ISO for user-data of this length in bytes, from a boot tree; made where it is not there yet."""
    with tempfile.TemporaryDirectory(prefix=".site-", dir=folder) as site:
        texts = {"user-data": _placeholder(length), "grub.cfg": padded(menu.encode())}
        request = making.request_iso(session, inputs, image, making.site_folder(Path(site), texts))
        wanted = _key(request, session)
        if found := _kept(session, folder / f"iso-{wanted}.iso", wanted):
            return found
        path = _place(session, folder / f"iso-{wanted}.iso")
        result = assemble(request, path)
        checked = gate.check_iso_of(session, request, result)
    offset = next(part["offset"] for part in checked["contents"] if part["name"] == USER_DATA)
    return _note(session, wanted, result, offset)


def cidata_original(session: Session, folder: Path, image: str, length: int) -> OriginalIso:
    """As `original`, the small ISO with user-data alone; `image` holds xorriso."""
    document = ["cidata", respin.FORMAT, image, session.environment.iso.epoch, length]
    wanted = hashlib.sha256(json.dumps(document).encode()).hexdigest()
    if found := _kept(session, folder / f"cidata-{wanted}.iso", wanted):
        return found
    with tempfile.TemporaryDirectory(prefix=".site-", dir=folder) as site:
        making.site_folder(Path(site), {"user-data": _placeholder(length), "meta-data": b""})
        path = _place(session, folder / f"cidata-{wanted}.iso")
        request = CidataRequest(image=image, folder=Path(site), epoch=session.environment.iso.epoch)
        result = assemble_cidata(request, path)
    offset = read_iso(path).files["/user-data"][0].offset
    return _note(session, wanted, result, offset)


def forget_others(folder: Path, kind: str, used: list[OriginalIso]) -> None:
    """Remove the originals of this kind that nothing is copied from any more."""
    names = {each.path.name for each in used}
    for path in folder.glob(f"{kind}-*.iso*"):
        if path.name.removesuffix(".sha256") not in names:
            path.unlink()


def _placeholder(length: int) -> bytes:
    return HEAD + b"\n" * (length - len(HEAD))


def _key(request: IsoRequest, session: Session) -> str:
    """All that the original is made of."""
    document = [respin.layout(request, open_contents(session)), respin.contents_of(request)]
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _place(session: Session, path: Path) -> Path:
    session.say("putting together the ISO that those of the sites are copies of")
    path.unlink(missing_ok=True)
    return path


def _kept(session: Session, path: Path, key: str) -> OriginalIso | None:
    """The one that is there, when its bytes are still those that were written."""
    noted = session.results.records.get(RECORD, key)
    if not noted or not path.is_file() or path.stat().st_size != noted["size"]:
        return None
    source = Original(path, noted["offset"])
    if source.digest() == noted["sha256"]:
        return OriginalIso(path, noted["sha256"], noted["size"], noted["offset"], source)
    source.close()
    return None


def _note(session: Session, key: str, result: IsoResult, offset: int) -> OriginalIso:
    session.results.records.add(RECORD, key, sha256=result.sha256, size=result.size_bytes, offset=offset)
    source = Original(result.path, offset)
    return OriginalIso(result.path, result.sha256, result.size_bytes, offset, source)
