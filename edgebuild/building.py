"""Build environments: what is not there yet is built, checked and shown; each environment in one step."""

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from edgebuild import documents, gate, making, render, report, shards, space
from edgebuild.assess import (
    TIMES,
    assess,
    expected,
    file_flaw,
    note_files,
    remember,
)
from edgebuild.dispatch import Dispatch, open_dispatch
from edgebuild.engine import Engine, ensure_engine, probe
from edgebuild.errors import BuildError, EdgebuildError, InputError
from edgebuild.images import Built, Work, build_images
from edgebuild.materials import iso_key, open_contents
from edgebuild.outcome import Build, Options, raise_failures, show, table
from edgebuild.plan import Kind, Target
from edgebuild.results import Artifact
from edgebuild.scan import search_set
from edgebuild.seal import finish_switch, publish, tag_images
from edgebuild.session import Session, prepare


def build(sessions: Sequence[Session], kinds: Sequence[Kind], options: Options | None = None) -> None:
    """Build what is not there yet of these environments' targets, and publish each environment in one step.

    What fails does not stop the others, but for `fail_fast`. Raises its error, or one that names all.
    """
    options, started = options or Options(), time.monotonic()
    shares = shards.share([session.plan for session in sessions], kinds, options.shard)
    if options.only:
        shares = [tuple(target for target in own if target.name == options.only) for own in shares]
    with contextlib.ExitStack() as locks:
        engine = locks.enter_context(ThreadPoolExecutor(max_workers=1)).submit(probe)  # meanwhile all is compared
        builds = [_open(session, kinds, own, options) for session, own in zip(sessions, shares, strict=True) if own]
        if not builds:
            sessions[0].say(f"shard {options.shard} has nothing to build: there are fewer targets than shards")
        for each in sorted(builds, key=lambda each: each.name):
            locks.enter_context(each.session.results.lock(each.session.say))
        for each in builds:
            each.assessment = assess(each.session, each.prepared, each.targets, again=options.again)
        if waiting := [each for each in builds if _is_unfinished(each)]:
            _make(waiting, options, engine.result(), alone=len(builds) == 1)
        elif builds:
            sessions[0].say("nothing has changed: all of it is there, and whole")
        for each in builds:
            if each not in waiting and each.assessment.unnamed:
                tag_images(each.assessment.unnamed)
    for each in builds:
        if not each.failed or each.artifacts:
            show(each, alone=len(builds) == 1)
    if len(builds) > 1:
        sys.stdout.write("\n" + table(builds))
    raise_failures(builds)
    sessions[0].say(f"done in {time.monotonic() - started:.1f} s")


def _open(session: Session, kinds: Sequence[Kind], targets: Sequence[Target], options: Options) -> Build:
    """Everything that can be wrong before anything is done."""
    has = {target.kind for target in targets}
    needs_secrets = "iso" in has or ("provider-image" in has and bool(session.environment.secrets.luet_auth))
    prepared = prepare(session, with_secrets=needs_secrets)
    if "iso" in has and prepared.for_sites:
        raise InputError(
            "user-data.j2 asks for values of a site, `site.…`: there is one ISO for each site",
            hint=f"./inv site-isos --env {session.plan.environment} --sites sites.csv",
        )
    return Build(
        session, [kind for kind in kinds if kind in has], prepared, targets, documents.signer_of(session), options
    )


def _is_unfinished(build: Build) -> bool:
    """Whether anything is to be done: to build, to write down, to sign."""
    results = build.session.results
    if build.assessment.to_build or results.unfinished.exists() or not build.assessment.engine_answers:
        return True
    if build.lacks_base:
        return True
    texts = {f"inputs/{name}": text for name, text in build.prepared.texts.items()}
    if "provider-image" in build.kinds:
        texts["cluster-profile.yaml"] = render.render_profile(build.session.environment)
    for name, text in texts.items():
        file = results.current / name
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            return True
    return build.signer is not None and not documents.is_signed_by(results.current, build.signer)


def _make(builds: Sequence[Build], options: Options, found: tuple[Engine | None, str], *, alone: bool) -> None:
    """Build the images of all environments, then finish each environment on its own."""
    began = time.time()
    engine = ensure_engine(builds[0].session.root, builds[0].session.consent, found)
    for each in builds:
        finish_switch(each.session)
    disks = [
        disk
        for each in builds
        for disk in space.disks(
            each.session, each.prepared.inputs, engine, iso=each.makes_iso, images=each.makes_images
        )
    ]
    disks = space.by_device(disks)
    space.check(disks)
    if any(each.session.environment.limits.disk for each in builds):
        from edgebuild import budget  # with Docker's SDK, which takes a while

        budget.make_room([each.session for each in builds], sum(disk.needed for disk in disks))
    dispatches = [open_dispatch(each.session) if each.images else None for each in builds]
    for each in builds:
        known = each.assessment.engine_answers and not each.session.environment.os.bootstrap
        if each.makes_images and not known:
            making.bootstrap(each.session)
            # Of the base that is there now, and with an engine that answers.
            each.assessment = assess(each.session, each.prepared, each.targets, again=options.again)
        for line in report.decisions(each.assessment.reasons, expected(each.session, each.assessment)):
            each.session.say(line if alone else f"{each.name}: {line}")
    with space.watched(disks), contextlib.ExitStack() as stagings:
        with gate.early_checks() as check:
            works = [
                _work(each, stagings.enter_context(each.session.results.staging()), engine, dispatch, check)
                for each, dispatch in zip(builds, dispatches, strict=True)
            ]
            images = build_images(works, jobs=options.jobs, fail_fast=options.fail_fast)
        for each, work, built in zip(builds, works, images, strict=True):
            try:
                _finish(each, work, built, began)
            except EdgebuildError as error:
                if options.fail_fast or alone:
                    raise
                each.failed[each.name] = error


def _work(
    build: Build, staging: Path, engine: Engine, dispatch: Dispatch | None, check: Callable[[Session, str], object]
) -> Work:
    making.write_texts(build.prepared.texts, staging / "inputs")
    checked = {target.name for target in build.images if target.kind in gate.OS_KINDS}

    def written(name: str, digest: str) -> None:
        if name in checked:
            check(build.session, digest)

    return Work(build.session, build.prepared, staging, build.images, engine, dispatch, written)


def _finish(build: Build, work: Work, built: Built, began: float) -> None:
    """Check what was built, put the ISO together, describe it all, and show the set."""
    session, staging = build.session, work.staging
    build.failed |= built.failed
    keys = {each.target.name: each.key for each in build.assessment.verdicts}
    made = [replace(each, key=keys[each.name]) for each in built.artifacts]
    standing = [each for each in build.assessment.cached if each.kind != "iso"]
    _note_times(build, built)
    gate.check_images(session, made)
    iso = _iso(build, staging, made, standing)
    if build.failed and not made and not iso:
        return
    made += [iso] if iso else []
    if "provider-image" in build.kinds:
        text = render.render_profile(session.environment)
        (staging / "cluster-profile.yaml").write_text(text, encoding="utf-8")
    upstream = {**build.assessment.images, **built.upstream}
    run = documents.Run(work.engine, began, time.time(), upstream)
    documents.write(session, staging, made, run, build.signer, others=standing)
    if build.signer:
        documents.sign_again(session.results.current, staging, build.signer, but=[each.name for each in made])

    def look(folder: Path) -> None:
        build.searched = search_set(session, build.prepared, folder, [*made, *standing])

    drop = ("*.iso", "*.iso.sha256") if iso else ()
    # Those of a build that took its time may have lost their names meanwhile.
    named = standing if built.artifacts else build.assessment.unnamed
    publish(session, staging, made, drop=drop, signer=build.signer, look=look, named=named)
    remember(session, build.assessment, made)
    note_files(session, [*made, *build.assessment.cached])
    build.artifacts = made


def _iso(build: Build, staging: Path, made: list[Artifact], standing: list[Artifact]) -> Artifact | None:
    """The ISO, where it must be made. A boot tree that had to be made anew replaces the damaged one in `made`."""
    verdict, session = build.iso, build.session
    if verdict is None or not verdict.reasons:
        return None
    boot_tree = next((each for each in [*made, *standing] if each.kind == "boot-tree"), None)
    if boot_tree is None:
        why = build.failed.get(session.plan.boot_tree.name)
        build.failed[verdict.target.name] = why or BuildError("the ISO was not made: its boot tree was not built")
        return None
    key = _iso_key(build, boot_tree)
    if not verdict.key and _stands(build, verdict.known, key):
        session.say("the boot tree came out as it was, and so the ISO stands")
        return None
    artifacts = [*made, *(each for each in standing if each not in made)]
    iso = making.build_sound_iso(session, build.prepared, staging, artifacts, again=build.options.again)
    found = next(each for each in artifacts if each.kind == "boot-tree")
    if found is not boot_tree:
        for each in (made, standing):
            each[:] = [other for other in each if other is not boot_tree]
        made.append(replace(found, key=boot_tree.key))
        key = _iso_key(build, found)
    return replace(iso, key=key)


def _stands(build: Build, known: Artifact | None, key: str) -> bool:
    """Whether the last ISO is the one that would be made: the boot tree was built, and came out as it was."""
    if known is None or known.key != key or build.options.again:
        return False
    return not file_flaw(build.session, known, open_contents(build.session))


def _iso_key(build: Build, boot_tree: Artifact) -> str:
    key, document = iso_key(build.session, build.prepared, boot_tree.digest, open_contents(build.session))
    build.assessment.documents[key] = document
    return key


def _note_times(build: Build, built: Built) -> None:
    """Of the stages that ran; and of those that were expected to, and had nothing to do, that they take no time."""
    session = build.session
    before = (session.results.records.get(*TIMES) or {}).get("seconds", {})
    seconds = {**dict.fromkeys(build.assessment.changed, 0.0), **before, **built.stage_seconds}
    if built.artifacts and seconds != before:
        session.results.records.add(*TIMES, seconds=seconds)
