"""Where artifacts come from: an in-toto statement of SLSA v1, in a DSSE envelope that can be signed. Pure."""

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from edgebuild.errors import VerificationError

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
BUILD_TYPE = "urn:edgebuild:build:1"  # docs/supply-chain.md says what its parameters are
BUILDER = "urn:edgebuild:builder"
LOGIN = re.compile(r"(?<=://)[^/@\s]+@")


@dataclass(frozen=True)
class Subject:
    """An artifact: a file's name in the result folder, or an image's reference. `digest` is sha256:…"""

    name: str
    digest: str


@dataclass(frozen=True)
class Dependency:
    """What went into the build. `digest` is sha256:…, or gitCommit:… for the repository."""

    name: str
    digest: str
    uri: str = ""
    annotations: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Invocation:
    """One run: its id, when it was (seconds since 1970), and with which versions of what."""

    id: str
    started: float
    finished: float
    versions: Mapping[str, str]  # edgebuild, engine, buildx, …
    builder: str = BUILDER


def image_dependency(reference: str, digest: str) -> Dependency:
    """An upstream image, by the digest that was built on."""
    named = reference.partition("@")[0]
    name, colon, tag = named.rpartition(":")
    if not colon or "/" in tag:  # the colon of a port
        name, tag = named, ""
    uri = f"pkg:docker/{quote(name, safe='/')}" + (f"@{quote(tag, safe='')}" if tag else "")
    return Dependency(reference, digest, f"{uri}?digest={quote(digest, safe='')}")


def git_dependency(remote: str, commit: str, *, dirty: bool) -> Dependency:
    """The repository that was built. `dirty`: with changes that the commit does not have; `remote` may be empty."""
    remote = LOGIN.sub("", remote)
    uri = f"git+{remote}@{commit}" if "://" in remote else ""
    return Dependency("repository", f"gitCommit:{commit}", uri, {"dirty": dirty})


def statement(
    subjects: Sequence[Subject],
    *,
    environment: str,
    configuration: Mapping[str, Any],
    targets: Sequence[str],
    dependencies: Sequence[Dependency],
    invocation: Invocation,
    byproducts: Sequence[Subject] = (),
) -> bytes:
    """The statement as JSON. `configuration` holds secrets as references only; logins in addresses are left out.

    `byproducts` are what was written about the subjects, such as bills of materials. All but `runDetails` is the same
    for the same inputs.
    """
    definition = {
        "buildType": BUILD_TYPE,
        "externalParameters": {
            "environment": environment,
            "targets": sorted(targets),
            "configuration": without_logins(configuration),
        },
        "resolvedDependencies": [
            _descriptor(each) for each in sorted(_each_once(dependencies), key=lambda each: (each.name, each.digest))
        ],
    }
    document = {
        "_type": STATEMENT,
        "subject": _named(subjects),
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": definition,
            "runDetails": {
                "builder": {"id": invocation.builder, "version": dict(sorted(invocation.versions.items()))},
                "metadata": {
                    "invocationId": invocation.id,
                    "startedOn": _time(invocation.started),
                    "finishedOn": _time(invocation.finished),
                },
                "byproducts": _named(byproducts),
            },
        },
    }
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def _named(subjects: Sequence[Subject]) -> list[dict[str, Any]]:
    ordered = sorted(subjects, key=lambda each: (each.name, each.digest))
    return [{"name": each.name, "digest": _digest(each.digest)} for each in ordered]


def _each_once(dependencies: Sequence[Dependency]) -> list[Dependency]:
    """Each once: targets share most of what they are made from."""
    return list({(each.name, each.digest): each for each in dependencies}.values())


def without_logins(value: Any) -> Any:
    """The same data; in addresses such as http://user:password@proxy the login is left out."""
    if isinstance(value, str):
        return LOGIN.sub("", value)
    if isinstance(value, Mapping):
        return {str(key): without_logins(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_logins(each) for each in value]
    return value


def _descriptor(dependency: Dependency) -> dict[str, Any]:
    found: dict[str, Any] = {"name": LOGIN.sub("", dependency.name), "digest": _digest(dependency.digest)}
    if dependency.uri:
        found["uri"] = LOGIN.sub("", dependency.uri)
    if dependency.annotations:
        found["annotations"] = dict(dependency.annotations)
    return found


def _digest(text: str) -> dict[str, str]:
    algorithm, _, value = text.partition(":")
    return {algorithm: value}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")


@dataclass(frozen=True)
class Statement:
    """What a statement of others' making is about."""

    subjects: tuple[Subject, ...]
    byproducts: tuple[Subject, ...]


def read_statement(payload: bytes) -> Statement:
    """Raises VerificationError when this is no statement of SLSA v1."""
    try:
        document = json.loads(payload)
        found = [
            tuple(Subject(str(each["name"]), f"sha256:{each['digest']['sha256']}") for each in part)
            for part in (document["subject"], document["predicate"]["runDetails"].get("byproducts", []))
        ]
        types = (document["_type"], document["predicateType"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise VerificationError("the provenance is no in-toto statement") from error
    if types != (STATEMENT, PREDICATE):
        raise VerificationError("the provenance is no SLSA v1 statement")
    return Statement(*found)


def check_statement(payload: bytes, subjects: Sequence[Subject]) -> list[str]:
    """What differs between a statement's subjects and these, one line each; nothing when they are the same."""
    try:
        read = read_statement(payload)
    except VerificationError as error:
        return [error.message]
    named = {each.name: each.digest for each in read.subjects}
    problems = []
    there = {each.name: each.digest for each in subjects}
    for name in sorted(named.keys() | there.keys()):
        if name not in named:
            problems.append(f"{name}: the provenance does not name it")
        elif name not in there:
            problems.append(f"{name}: the provenance names it, but it is not there")
        elif named[name] != there[name]:
            problems.append(f"{name}: is {there[name]}, but the provenance is about {named[name]}")
    return problems


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: the bytes that are signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True)
class Attachments:
    """What an image gets: a CycloneDX document, and a DSSE envelope whose statement names the image's digest."""

    sbom: str
    provenance: str


@dataclass(frozen=True)
class Envelope:
    """An opened DSSE envelope. `signatures` are in base64, under the names of their keys; both of others' making."""

    payload_type: str
    payload: bytes
    signatures: tuple[tuple[str, str], ...]

    @property
    def signed(self) -> bytes:
        """What each signature is of."""
        return pae(self.payload_type, self.payload)


def seal(payload: bytes, sign: Callable[[bytes], str] | None = None, *, key_id: str = "") -> str:
    """The envelope of a statement as JSON, signed when there is something to sign with.

    `sign` gets the bytes to sign and gives the signature in base64.
    """
    signatures = [{"keyid": key_id, "sig": sign(pae(PAYLOAD_TYPE, payload))}] if sign else []
    body = base64.b64encode(payload).decode()
    return json.dumps({"payloadType": PAYLOAD_TYPE, "payload": body, "signatures": signatures}, indent=1) + "\n"


def unseal(text: str | bytes) -> Envelope:
    """Open an envelope; its signatures are not checked. Raises VerificationError when it is none."""
    try:
        document = json.loads(text)
        kind, payload = document["payloadType"], base64.b64decode(document["payload"], validate=True)
        signatures = tuple((str(each.get("keyid", "")), str(each["sig"])) for each in document["signatures"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error) as error:
        raise VerificationError("the provenance is no DSSE envelope") from error
    if kind != PAYLOAD_TYPE:
        raise VerificationError(f"the envelope holds {kind!r}, not a statement of in-toto")
    return Envelope(kind, payload, signatures)
