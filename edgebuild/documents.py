"""What is written about artifacts: bills of materials, and where they come from; for result set and registry."""

import hashlib
import json
import os
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgebuild import provenance, report, sbom, signing, sums
from edgebuild.bootstrap import recorded_digest
from edgebuild.engine import Engine
from edgebuild.errors import VerificationError
from edgebuild.gate import OS_KINDS
from edgebuild.host import parse_os_release
from edgebuild.inputs import find_inputs
from edgebuild.provenance import Attachments, Dependency, Invocation, Subject
from edgebuild.render import bootstrap_folder
from edgebuild.results import ARTIFACTS, Artifact, read_artifacts
from edgebuild.run import run
from edgebuild.session import Session
from edgebuild.signing import Signer

VERSION = "0.1.0"
BILL = "sbom/{}.cdx.json"
STATEMENT = "provenance/{}.json"


@dataclass(frozen=True)
class Run:
    """One build, for its provenance. Times are seconds since 1970; `upstream` is reference to digest."""

    engine: Engine
    started: float
    finished: float
    upstream: Mapping[str, str]


def signer_of(session: Session) -> Signer | None:
    """Who signs this environment's results; None without a key. Raises InputError when the key cannot be used."""
    asked = session.environment.signing
    return signing.open_signer(asked.key, asked.password, environ=os.environ, root=session.root)


def write(
    session: Session,
    folder: Path,
    artifacts: Sequence[Artifact],
    made: Run,
    signer: Signer | None,
    *,
    others: Sequence[Artifact] = (),
) -> None:
    """Describe these artifacts in `folder`: a bill of materials and a provenance of its own for each.

    Its own, because a later run may make some of them anew and keep the `others`.
    """
    bills = _bills(session, artifacts, others)
    versions = {"edgebuild": VERSION, "docker": made.engine.version, "buildx": made.engine.buildx}
    invocation = Invocation(f"urn:uuid:{uuid.uuid4()}", made.started, made.finished, versions)
    common = _dependencies(session, folder, made)
    for each in artifacts:
        bill = bills.get(each.name)
        if bill:
            _put(folder / BILL.format(each.name), bill)
        payload = provenance.statement(
            [_statement_subject(each)],
            environment=session.plan.environment,
            configuration=report.configuration_data(session.environment),
            targets=[each.name],
            dependencies=[*common, *_site_files(each)],
            invocation=invocation,
            byproducts=[Subject(BILL.format(each.name), sums.digest_of(bill.encode()))] if bill else [],
        )
        _put(folder / STATEMENT.format(each.name), _envelope(payload, signer))


def _statement_subject(artifact: Artifact) -> Subject:
    return Subject(artifact.reference or Path(str(artifact.path)).name, artifact.digest)


def _put(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")


def _envelope(payload: bytes, signer: Signer | None) -> str:
    if signer is None:
        return provenance.seal(payload)
    return provenance.seal(payload, signer.sign, key_id=signer.key_id)


def is_signed_by(folder: Path, signer: Signer) -> bool:
    """Whether a set and each of its statements carry signatures of this key's owner. They are not verified."""
    if not (folder / sums.SIGNATURE).exists():
        return False
    try:
        files = [file.read_bytes() for file in folder.glob(STATEMENT.format("*"))]
        return all(signer.key_id in {key for key, _ in provenance.unseal(file).signatures} for file in files)
    except (OSError, VerificationError):
        return False


def sign_again(last: Path, folder: Path, signer: Signer, *, but: Collection[str]) -> None:
    """Put the last set's statements into `folder` with this signature; those of the artifacts in `but` are new."""
    for file in last.glob(STATEMENT.format("*")):
        if file.stem not in but:
            _put(
                folder / STATEMENT.format(file.stem), _envelope(provenance.unseal(file.read_bytes()).payload, signer)
            )


def _bills(session: Session, artifacts: Sequence[Artifact], others: Sequence[Artifact]) -> dict[str, str]:
    """Artifact to CycloneDX document: of every OS image, and of the ISO, whose root is the installer image's."""
    systems = {each.name: each for each in [*others, *artifacts] if each.kind in OS_KINDS}
    installer = next((each for each in systems.values() if each.kind == "installer-image"), None)
    records = session.results.records
    # Provider images mostly hold the same packages: the document is then made once.
    subjects: dict[str, list[tuple[str, sbom.Subject]]] = {}
    for each in artifacts:
        system = installer if each.kind == "iso" else systems.get(each.name)
        noted = records.get("images", system.digest) if system else None
        if noted:
            subjects.setdefault(noted["inventory"], []).append((each.name, _subject(session, each)))
    found: dict[str, str] = {}
    for key, named in subjects.items():
        document = _common_document(session, key)
        found |= {name: sbom.bill(document, subject) for name, subject in named}
    return found


def _common_document(session: Session, inventory_key: str) -> Mapping[str, Any]:
    """What the bills of all images with this inventory have in common; made once, and kept."""
    records, epoch = session.results.records, session.environment.iso.epoch
    key = hashlib.sha256(f"{inventory_key} {epoch} {VERSION}".encode()).hexdigest()
    if noted := records.get("bills", key):
        found: Mapping[str, Any] = noted["document"]
        return found
    inventory = sbom.parse_inventory((records.get("inventories", inventory_key) or {}).get("text", ""))
    os_release = parse_os_release(inventory.os_release)
    document = sbom.common_document(inventory.packages, os_release, epoch=epoch, version=VERSION)
    records.add("bills", key, document=document)
    return document


def _subject(session: Session, artifact: Artifact) -> sbom.Subject:
    if not artifact.reference:
        name = Path(str(artifact.path)).name
        return sbom.Subject(name, session.environment.pe_version, artifact.digest, "root-filesystem")
    name, _, tag = artifact.reference.rpartition(":")
    target = next(each for each in session.plan.targets if each.name == artifact.name)
    kubernetes = session.environment.kubernetes
    parts: tuple[sbom.Part, ...] = ()
    if target.kubernetes_version and kubernetes.payload != "none":
        parts = (sbom.Part(kubernetes.distribution, target.kubernetes_version),)
    return sbom.Subject(name, tag, artifact.digest, "image", parts)


def _dependencies(session: Session, folder: Path, made: Run) -> list[Dependency]:
    """What went in: the repository, its files, upstream images, the base made here, the Dockerfile."""
    found = [provenance.image_dependency(reference, digest) for reference, digest in made.upstream.items()]
    found += _repository(session.root)
    base = recorded_digest(session.root / bootstrap_folder(session.environment))
    if session.environment.os.bootstrap and base:
        found.append(Dependency("base.tar", f"sha256:{base}"))
    dockerfile = (folder / "inputs/Dockerfile").read_text(encoding="utf-8")
    found.append(Dependency("inputs/Dockerfile", sums.digest_of(dockerfile.encode())))
    return found + _files(session)


def _files(session: Session) -> list[Dependency]:
    """The repository's files that go into images and ISO as they are; the commit may not have them."""
    inputs = find_inputs(session.root, session.environment)
    names = ["user-data.j2", *inputs.certificates]
    names += [f"overlay/files/{each}" for each in inputs.overlay]
    names += [f"overlay/files-iso/{each}" for each in inputs.overlay_iso]
    files = [(name, session.root / name) for name in names]
    return [Dependency(name, f"sha256:{sums.digest(file)}") for name, file in files if file.is_file()]


def _site_files(artifact: Artifact) -> list[Dependency]:
    """The bundles of an ISO's site."""
    parts = [part for part in artifact.contents or () if part["name"].startswith("/opt/spectrocloud/")]
    return [Dependency(part["name"], f"sha256:{part['sha256']}") for part in parts]


def _repository(root: Path) -> list[Dependency]:
    """The commit that is checked out; nothing where the repository came without Git."""
    if not (root / ".git").exists():
        return []
    git = ["git", "-c", "safe.directory=*"]
    commit = run([*git, "rev-parse", "HEAD"], cwd=root, check=False).stdout.strip()
    if not commit:
        return []
    dirty = bool(run([*git, "status", "--porcelain"], cwd=root, check=False).stdout.strip())
    remote = run([*git, "remote", "get-url", "origin"], cwd=root, check=False).stdout.strip()
    return [provenance.git_dependency(remote, commit, dirty=dirty)]


def attachments(folder: Path, name: str, reference: str, digest: str, signer: Signer | None) -> Attachments | None:
    """What an image gets in the registry, where its digest is the manifest's; None when nothing was written of it."""
    bill, statement = folder / BILL.format(name), folder / STATEMENT.format(name)
    if not (bill.exists() and statement.exists()):
        return None
    text = bill.read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(provenance.unseal(statement.read_text(encoding="utf-8")).payload)
    document["subject"] = [{"name": reference, "digest": {"sha256": digest.removeprefix("sha256:")}}]
    document["predicate"]["runDetails"]["byproducts"] = [
        {"name": BILL.format(name), "digest": {"sha256": sums.digest_of(text.encode()).removeprefix("sha256:")}}
    ]
    payload = json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"
    return Attachments(text, _envelope(payload, signer))


def problems(folder: Path, public_key: Path) -> list[str]:
    """What is wrong with the signatures of a result set; nothing when all are by the owner of this key."""
    signing.check_public_key(public_key)
    found = _signature_problems(folder, public_key)
    try:
        entries = read_artifacts(folder)
    except (OSError, ValueError):
        return [*found, f"{ARTIFACTS}: cannot be read"]
    for each in entries:
        name = STATEMENT.format(each.name)
        try:
            envelope = provenance.unseal((folder / name).read_bytes())
            if not envelope.signatures:
                raise VerificationError("it is not signed")
            signing.verify(envelope.signed, envelope.signatures[0][1], public_key)
            about = provenance.check_statement(envelope.payload, [_statement_subject(each)])
            found += [f"{name}: {problem}" for problem in about]
        except (VerificationError, OSError) as error:
            found.append(f"{name}: {getattr(error, 'message', None) or getattr(error, 'strerror', error)}")
    return found


def _signature_problems(folder: Path, public_key: Path) -> list[str]:
    """What is wrong with the signature over the checksums."""
    try:
        signature = (folder / sums.SIGNATURE).read_text(encoding="utf-8", errors="replace")
        signing.verify((folder / sums.NAME).read_bytes(), signature, public_key)
    except FileNotFoundError:
        return [f"{sums.NAME}: it is not signed"]
    except VerificationError as error:
        return [f"{sums.NAME}: {error.message}"]
    return []
