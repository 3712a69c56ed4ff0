"""What must be built, and why: each target's content key against its last result's, which must still be there."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgebuild.contents import Contents
from edgebuild.errors import EdgebuildError
from edgebuild.forecast import Forecast, forecast
from edgebuild.keyed import Keyed
from edgebuild.keys import Document, image_document, key_of, stage_documents
from edgebuild.materials import gather, iso_key, open_contents, settings
from edgebuild.plan import Target
from edgebuild.reasons import changes, difference
from edgebuild.results import Artifact
from edgebuild.run import run
from edgebuild.session import Prepared, Session
from edgebuild.stages import Stage, chain, parse_stages

KEYS = "keys"  # the kind of the records that hold documents
TIMES = ("times", "stages")  # the record of how long stages took
NEVER = "never built here"


@dataclass(frozen=True)
class Verdict:
    """What is to be done about one target. Without `reasons` its last result, `known`, stands."""

    target: Target
    key: str
    reasons: tuple[str, ...] = ()
    known: Artifact | None = None


@dataclass(frozen=True)
class Assessment:
    """The verdicts on an environment's targets.

    `documents`: key to document of all that is asked for; `images`: upstream reference to digest; `changed`: stages
    that will run; `unnamed`: artifacts whose image has lost its name in the engine. Where no engine answers, images
    count as there.
    """

    verdicts: tuple[Verdict, ...]
    documents: dict[str, Document] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    unnamed: tuple[Artifact, ...] = ()
    engine_answers: bool = True

    @property
    def reasons(self) -> dict[str, tuple[str, ...]]:
        """Target to why it must be built; none where its last result stands."""
        return {each.target.name: each.reasons for each in self.verdicts}

    @property
    def to_build(self) -> tuple[Verdict, ...]:
        return tuple(each for each in self.verdicts if each.reasons)

    @property
    def cached(self) -> tuple[Artifact, ...]:
        return tuple(each.known for each in self.verdicts if each.known and not each.reasons)


def assess(
    session: Session, prepared: Prepared, targets: Sequence[Target], *, again: bool = False, secrets: bool = True
) -> Assessment:
    """Compare; nothing is built. `again`: everything is to be built. Without `secrets` an ISO's key is not known."""
    contents = open_contents(session)
    keyed = Keyed(session.root)
    stages = parse_stages(prepared.texts["Dockerfile"])
    images = [target for target in targets if target.kind != "iso"]
    names = chain(stages, *(target.name for target in images))
    sources = gather(session, prepared, [stages[name] for name in names], contents, keyed)
    stage_docs = stage_documents(stages, names, sources)
    stage_keys = {name: key_of(document) for name, document in stage_docs.items()}
    documents = {stage_keys[name]: document for name, document in stage_docs.items()}
    asked_of = settings(prepared)
    asked: dict[str, str] = {}
    for target in images:
        document = image_document(target.name, stage_keys[target.name], asked_of[target.name])
        asked[target.name] = key_of(document)
        documents[asked[target.name]] = document
    last = {each.name: each for each in session.results.readable_artifacts()}
    there = engine_images([last[target.name].digest for target in images if target.name in last])
    look = _Look(session, documents, last, there, again)
    verdicts = [look.at(target, asked[target.name]) for target in images]
    iso = next((target for target in targets if target.kind == "iso"), None)
    if iso and secrets:
        boot_tree = last.get(session.plan.boot_tree.name)
        key, document = iso_key(session, prepared, boot_tree.digest if boot_tree else "", contents)
        documents[key] = document
        verdicts.append(_iso_verdict(look, iso, key, verdicts, session, contents))
    contents.save()
    cached = [each.known for each in verdicts if each.known and not each.reasons and each.known.reference]
    return Assessment(
        tuple(verdicts),
        documents,
        sources.images,
        changed=tuple(_changed(look, stages, stage_keys, verdicts)),
        engine_answers=there is not None,
        unnamed=tuple(each for each in cached if there is not None and each.reference not in there[each.digest]),
    )


def engine_images(digests: Sequence[str]) -> Mapping[str, Sequence[str]] | None:
    """Digest to names of those that the engine has; None when there is no engine that answers."""
    if not digests:
        return {}
    try:
        argv = ["docker", "image", "inspect", "--format", "[{{json .Id}}, {{json .RepoTags}}]", *digests]
        result = run(argv, check=False)
    except EdgebuildError:
        return None
    found = dict(json.loads(line) for line in result.stdout.splitlines() if line)
    if result.returncode and "no such image" not in result.stderr.lower():
        return None
    return {digest: names or [] for digest, names in found.items()}


@dataclass(frozen=True)
class _Look:
    """How one target is judged."""

    session: Session
    documents: Mapping[str, Document]
    last: Mapping[str, Artifact]
    there: Mapping[str, Sequence[str]] | None
    again: bool

    def at(self, target: Target, key: str) -> Verdict:
        known = self.last.get(target.name)
        return Verdict(target, key, tuple(self._reasons(target, key, known)), known)

    def _reasons(self, target: Target, key: str, known: Artifact | None) -> list[str]:
        if known is None:
            return [NEVER]
        if known.key != key:
            return self.why(target, known.key or "", key)
        if self.again:
            return ["it was asked for again"]
        if known.reference and self.there is not None and known.digest not in self.there:
            return ["the engine has it no more"]
        return []

    def why(self, target: Target, before: str, key: str) -> list[str]:
        """The difference in words."""
        old = self.lookup(before)
        if old is None:
            return ["what it was made from is not recorded"]
        names = {reference: name.replace("_", " ") for name, reference in target.upstream.items()}
        return difference(old, self.documents[key], self.lookup, names=names) or ["its key differs"]

    def lookup(self, key: str) -> Document | None:
        return _document(self.session, self.documents, key)


def _document(session: Session, documents: Mapping[str, Document], key: str) -> Document | None:
    """Of this key: what is asked for now, or what was built before; None where that is not recorded."""
    if key in documents:
        return documents[key]
    noted = session.results.records.get(KEYS, key) if key else None
    return dict(noted["document"]) if noted else None


def _iso_verdict(
    look: _Look, iso: Target, key: str, images: Sequence[Verdict], session: Session, contents: Contents
) -> Verdict:
    verdict = look.at(iso, key)
    boot_tree = next((each for each in images if each.target.kind == "boot-tree"), None)
    if boot_tree and boot_tree.reasons:
        if verdict.known is None:
            return Verdict(iso, "", (NEVER,))
        own = tuple(each for each in verdict.reasons if each != "the boot tree is another one")
        return Verdict(iso, "", (*(f"boot tree: {each}" for each in boot_tree.reasons), *own), verdict.known)
    if verdict.known and not verdict.reasons and (flaw := file_flaw(session, verdict.known, contents)):
        return Verdict(iso, key, (flaw,), verdict.known)
    return verdict


def file_flaw(session: Session, known: Artifact, contents: Contents) -> str:
    """What is wrong with the ISO's file; empty when it is as it was written."""
    file = session.results.current.resolve() / Path(str(known.path)).name
    try:
        sound = f"sha256:{contents.digest(file)}" == known.digest
        checksum = file.with_name(file.name + ".sha256").read_text(encoding="ascii", errors="replace")
    except OSError:
        return f"{known.path} or its checksum is gone"
    if not sound or checksum.split()[:1] != [known.digest.removeprefix("sha256:")]:
        return f"{known.path} was changed since it was written"
    return ""


def _changed(
    look: _Look, stages: Mapping[str, Stage], keys: Mapping[str, str], verdicts: Sequence[Verdict]
) -> list[str]:
    """The stages that will run, most basic first: those of a target to build that the last build had not."""
    records = look.session.results.records
    wanted = chain(stages, *(each.target.name for each in verdicts if each.reasons and each.target.kind != "iso"))
    return [name for name in wanted if look.again or not records.get(KEYS, keys[name])]


def expected(session: Session, assessment: Assessment) -> Forecast:
    """How long the build will take and what it will write, by earlier runs of the environment."""
    last = {each.name: each for each in session.results.readable_artifacts()}
    seconds = (session.results.records.get(*TIMES) or {}).get("seconds", {})
    targets = [each.target for each in assessment.to_build]
    return forecast(targets, assessment.changed, last, seconds)


def remember(session: Session, assessment: Assessment, artifacts: Sequence[Artifact]) -> None:
    """Record what these were made from, so that the next difference can be told."""
    records = session.results.records
    pending = [str(each.key) for each in artifacts]
    while pending:
        key = pending.pop()
        document = assessment.documents.get(key)
        if document is None or records.get(KEYS, key):
            continue
        records.add(KEYS, key, document=document)
        pending += document.get("stages", {}).values()


def note_files(session: Session, artifacts: Sequence[Artifact]) -> None:
    """Remember the hashes of files of the set that is shown now: a new link has changed their times."""
    contents = open_contents(session)
    for each in artifacts:
        if each.path:
            contents.note(
                session.results.current.resolve() / Path(each.path).name, each.digest.removeprefix("sha256:")
            )
    contents.save()


def full_difference(session: Session, assessment: Assessment, verdict: Verdict) -> list[str]:
    """All that speaks for building a target: the reasons, then each changed instruction of each stage."""
    name, known = verdict.target.name, verdict.known
    if not verdict.reasons:
        return [f"{name}: cached", f"  key  {verdict.key}"]
    head = [f"{name}: build, because", *(f"  {each}" for each in verdict.reasons)]

    def lookup(key: str) -> Document | None:
        return _document(session, assessment.documents, key)

    old, new = lookup(known.key or "") if known else None, assessment.documents.get(verdict.key)
    if old is None or new is None:
        return head
    return [*head, "", f"  key  {known.key if known else ''}", f"  now  {verdict.key}", *changes(old, new, lookup)]
