"""`inv verify`: what lies in the result folder, in the engine and in the registry, against what was built."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker

from edgebuild import attestations, documents, gate, oci, sums
from edgebuild.engine import docker_client, ensure_engine
from edgebuild.errors import InputError, RegistryError, VerificationError
from edgebuild.isofile import AREA_PADDING, Region, digest, read_iso
from edgebuild.references import split_reference
from edgebuild.results import ARTIFACTS, Artifact, read_artifacts
from edgebuild.session import Session
from edgebuild.structure import Expected, check_iso


@dataclass(frozen=True)
class Finding:
    """One part that was looked at: what was checked, and everything wrong with it."""

    part: str
    checked: str
    problems: tuple[str, ...] = ()


def verify_iso(path: Path, known: Artifact | None) -> tuple[Finding, str]:
    """Check an ISO; `known` is its entry of artifacts.json. Also returns its SHA-256 in hex.

    Needs no engine and no network: hashing it once takes most of the time.
    """
    expected = Expected(**known.asked) if known and known.asked else Expected()
    with ThreadPoolExecutor(max_workers=1) as pool:
        whole = pool.submit(sums.digest, path)
        try:
            iso = read_iso(path)
            flaws = check_iso(path, iso, expected)
            parts = len(iso.files)
        except VerificationError as error:
            flaws, parts = [error.message], 0
        actual = whole.result()
    problems = []
    written = _checksum(path)
    if known and f"sha256:{actual}" != known.digest:
        problems = _changed_parts(path, known) or ["its bytes are not those that were built"]
    if written and written != actual:
        problems.append(f"its checksum is not that of {path.name}.sha256")
    problems += [flaw for flaw in flaws if flaw not in problems]
    compared = "checksum" if written or known else f"nothing beside it tells its checksum: {actual}"
    checked = f"{parts} files, boot entries, partitions, root file system, {compared}"
    return Finding(path.name, checked, tuple(problems)), actual


def _checksum(path: Path) -> str:
    """The SHA-256 in the file beside it; empty when there is none, and never equal to one when it is damaged."""
    try:
        words = path.with_name(path.name + ".sha256").read_text(encoding="utf-8", errors="replace").split()
    except FileNotFoundError:
        return ""
    return words[0] if len(words) == 2 and words[1] == path.name else "damaged"


def _changed_parts(path: Path, known: Artifact) -> list[str]:
    """The parts of an ISO whose bytes are others than when it was built."""
    size = path.stat().st_size
    problems = []
    if size != known.size_bytes:
        problems.append(f"it has {size} bytes, and had {known.size_bytes}")
    for region, wanted in _regions(known):
        if digest(path, [region]) != wanted:
            problems.append(f"{region.name}: its bytes are not those that were built")
    return problems or [f"{AREA_PADDING} between its files: its bytes are not those that were built"]


def verify_path(path: Path, *, key: Path | None = None) -> list[Finding]:
    """Check an ISO, or a folder with results, on any machine. Raises InputError when there is nothing to check.

    With the public `key` of who signs, also the signatures over what lies beside it.
    """
    if path.is_dir():
        folder = path / ".current" if (path / ".current").exists() else path
        return [*_set_findings(folder, *_read_artifacts(folder)), *_signature_findings(folder, key)]
    if not path.is_file():
        raise InputError(f"{path} does not exist", hint="./inv verify PATH takes an ISO or a folder with results")
    artifacts, damage = _read_artifacts(path.parent)
    finding, digest = verify_iso(path, _entry(artifacts, path.name))
    signed = list(_signature_findings(path.parent, key))
    if key and sums.read(path.parent).get(path.name) != digest:
        signed.append(Finding(sums.NAME, "", (f"what is signed there is not this {path.name}",)))
    return [*damage, finding, *signed]


def _signature_findings(folder: Path, key: Path | None) -> Iterator[Finding]:
    if key:
        flaws = documents.problems(folder, key)
        yield Finding("signatures", f"of {sums.NAME} and provenance, by the owner of {key}", tuple(flaws))


def _read_artifacts(folder: Path) -> tuple[list[Artifact], list[Finding]]:
    """The entries of artifacts.json, or what is wrong with it."""
    try:
        artifacts = read_artifacts(folder)
        for each in artifacts:
            Expected(**(each.asked or {}))
            _regions(each)
        return artifacts, []
    except FileNotFoundError:
        return [], []
    except (ValueError, TypeError, KeyError) as error:
        return [], [Finding(ARTIFACTS, "can be read", (f"it was changed: {str(error).splitlines()[0]}",))]


def _regions(artifact: Artifact) -> list[tuple[Region, str]]:
    """The parts of an ISO with their hashes. Raises ValueError, TypeError or KeyError when they are none."""
    found = [
        (Region(part["offset"], part["length"], part["name"]), part["sha256"]) for part in artifact.contents or ()
    ]
    if any(region.offset < 0 or region.length < 0 or not isinstance(region.name, str) for region, _ in found):
        raise ValueError("a part of the ISO lies nowhere")
    return found


def _entry(artifacts: list[Artifact], name: str) -> Artifact | None:
    return next((each for each in artifacts if each.path and Path(each.path).name == name), None)


def _set_findings(folder: Path, artifacts: list[Artifact], damage: list[Finding]) -> Iterator[Finding]:
    """Every file of a result set."""
    yield from damage
    known: dict[str, str] = {}
    changed = []
    for iso in sorted(folder.glob("*.iso")):
        finding, known[iso.name] = verify_iso(iso, _entry(artifacts, iso.name))
        changed += [iso.name] if finding.problems else []
        yield finding
    missing = [each.path for each in artifacts if each.path and not (folder / Path(each.path).name).exists()]
    yield from (Finding(Path(path).name, "", ("it is missing",)) for path in missing if path)
    said = tuple(f"{name}: " for name in changed)
    others = [problem for problem in sums.problems(folder, known=known) if not problem.startswith(said)]
    yield Finding("files", f"all others as in {sums.NAME}", tuple(others))


def verify_set(session: Session, *, registry: bool = True, key: Path | None = None) -> list[Finding]:
    """Everything of the environment's last complete set: files, images in the engine, images in the registry."""
    folder = session.results.current
    if not folder.exists():
        raise InputError(
            f"build/{session.plan.environment} holds no results",
            hint=f"./inv build-all-images --env {session.plan.environment}",
        )
    artifacts, damage = _read_artifacts(folder)
    findings = [*_set_findings(folder, artifacts, damage), *_signature_findings(folder, key)]
    images = [each for each in artifacts if each.reference]
    findings += _engine_findings(session, images)
    if registry and (pushed := [each for each in images if each.registry_digest]):
        findings += _registry_findings(pushed, key)
    return findings


def _engine_findings(session: Session, images: list[Artifact]) -> Iterator[Finding]:
    """Each image by digest, and by tag what is pushed by it; then what is inside, for those that hosts get."""
    ensure_engine(session.root, session.consent)
    client = docker_client()
    there = []
    for image in images:
        problems, tagged = [], _id(client, str(image.reference))
        if _id(client, image.digest):
            there.append(image)
        elif not image.registry_digest:
            problems.append(f"the engine has {image.digest} no more")
        if image.kind == "provider-image" and tagged and tagged != image.digest:
            problems.append(f"the engine has another image under {image.reference}: {tagged}")
        yield Finding(image.name, "the engine has it", tuple(problems))
    client.close()
    flaws = gate.images_problems(session, there)
    yield Finding("operating system", "kernel, initrd, links, release, no host keys in each image", tuple(flaws))


def _id(client: Any, reference: str) -> str:
    try:
        return str(client.api.inspect_image(reference)["Id"])
    except docker.errors.ImageNotFound:
        return ""


def _registry_findings(pushed: list[Artifact], key: Path | None) -> Iterator[Finding]:
    """Every byte of every pushed image, that its tag still leads to it, and with a key what is attached to it."""
    problems = []
    pairs = [(str(image.reference), str(image.registry_digest)) for image in pushed]
    try:
        problems += oci.check_images(pairs)
        for reference, wanted in pairs:
            host, repository, tag = split_reference(reference)
            remote = oci.Registry(host)
            found = remote.manifest(repository, tag)[0]
            if found != wanted:
                problems.append(f"{reference}: the tag leads to {found}, and was pushed as {wanted}")
            if key:
                problems += attestations.check_attached(remote, reference, wanted, key)
    except RegistryError as error:
        problems.append(error.message)
    yield Finding("registry", f"every byte of {len(pairs)} pushed images", tuple(dict.fromkeys(problems)))


def raise_problems(findings: list[Finding], *, hint: str) -> None:
    """Raise one VerificationError that names everything wrong; return when nothing is."""
    problems = [f"{finding.part}: {problem}" for finding in findings for problem in finding.problems]
    if problems:
        word = "difference" if len(problems) == 1 else "differences"
        raise VerificationError(f"{len(problems)} {word}:\n  " + "\n  ".join(problems), hint=hint)


def remember(session: Session, findings: list[Finding]) -> None:
    """Note that this set has passed, by its checksums and by the state of its ISO's file."""
    if not any(finding.problems for finding in findings):
        session.results.records.add("verified", _set_key(session), **_iso_state(session))


def is_verified(session: Session) -> bool:
    """Whether this very set has passed, and its ISO was not written to since."""
    noted = session.results.records.get("verified", _set_key(session)) if _set_key(session) else None
    return noted is not None and {**noted, **_iso_state(session)} == noted


def _set_key(session: Session) -> str:
    try:
        return sums.digest(session.results.current / sums.NAME)
    except FileNotFoundError:
        return ""


def _iso_state(session: Session) -> Mapping[str, list[int]]:
    """Size, time of change and number of each ISO file: they differ when anybody has written to it."""
    states = {}
    for iso in session.results.current.glob("*.iso"):
        found = iso.stat()
        states[iso.name] = [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
    return states
