"""`inv site-isos`: one ISO for each site, as a copy of one original with the site's user-data in it."""

import contextlib
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from edgebuild import building, render, siteindex, workflow
from edgebuild.copying import clone
from edgebuild.errors import SHOWN, BuildError
from edgebuild.gate import DamagedBootTree
from edgebuild.leftovers import forget_image
from edgebuild.making import BOOT_TREE_STAGES
from edgebuild.originals import OriginalIso, cidata_original, forget_others, original
from edgebuild.report import count, size
from edgebuild.session import Prepared, Session, prepare, template_names
from edgebuild.siteindex import SiteIndex
from edgebuild.siteplan import Fleet, Options, check, check_options, read_sites, read_template
from edgebuild.sites import Site
from edgebuild.sitewriter import Writer, key_of

FOLDER = "sites"
ORIGINALS = ".originals"
NAMED = 10  # sites in one line
JOBS = 2  # one copies while another hashes


def make(session: Session, options: Options) -> None:
    """Write the ISO of each site that has none, or another. Raises InputError, and BuildError for sites."""
    started = time.monotonic()
    check_options(options)
    prepared = prepare(session, with_secrets=True)
    files, template = read_sites(options.sites), read_template(session, options)
    names = template_names(session, prepared.secret_values)
    fleet = Fleet(session, options, files, template, names, SiteIndex(session.results.folder / FOLDER))
    check(fleet)
    try:
        writer = _write(fleet, prepared)
    except DamagedBootTree as error:
        session.say(f"{error.message}; making it anew")
        forget_image(_boot_tree(session), BOOT_TREE_STAGES, builder=session.environment.builder)
        writer = _write(fleet, prepared)
    _report(fleet, writer, time.monotonic() - started)


def _write(fleet: Fleet, prepared: Prepared) -> Writer:
    """The boot tree, the originals, then all sites, under the environment's lock."""
    session, folder = fleet.session, fleet.folder
    if fleet.options.kind == "iso":
        building.build([session], ["installer-image", "boot-tree"])
    with session.results.lock(session.say), contextlib.ExitStack() as stack:
        (folder / ORIGINALS).mkdir(parents=True, exist_ok=True)
        for left in folder.glob("*/.*.part"):
            left.unlink()
        fleet.index = SiteIndex(folder)  # another run may have written it meanwhile
        if fleet.index.damage:
            session.say(f"warning: {fleet.index.damage}")
        originals = {}
        for length in sorted(set(fleet.lengths)):  # padded, so they are few
            originals[length] = _original(fleet, prepared, length)
            stack.enter_context(originals[length].source)
        forget_others(folder / ORIGINALS, fleet.options.kind, list(originals.values()))
        _check_space(fleet, originals)
        writer = Writer(fleet, originals)
        writer.run(fleet.options.jobs or JOBS)
    return writer


def _boot_tree(session: Session) -> str:
    return next(each.digest for each in session.results.artifacts() if each.kind == "boot-tree")


def _original(fleet: Fleet, prepared: Prepared, length: int) -> OriginalIso:
    session, folder = fleet.session, fleet.folder / ORIGINALS
    if fleet.options.kind == "cidata":
        image = workflow.build_stages(session, prepared, (render.TOOLS,))[render.TOOLS]
        return cidata_original(session, folder, image, length)
    return original(session, folder, prepared.inputs, _boot_tree(session), prepared.texts["grub.cfg"], length)


def _check_space(fleet: Fleet, originals: dict[int, OriginalIso]) -> None:
    """Raises BuildError when the disk cannot take the ISOs that are to be written."""
    needed, largest = 0, max(each.size for each in originals.values())
    for number, site in enumerate(fleet.sites()):
        each = originals[fleet.lengths[number]]
        known = fleet.index.get(site.name, fleet.options.kind) if isinstance(site, Site) else None
        there = fleet.folder / known.path if known else None
        old = there.stat().st_size if there and there.exists() else 0
        if not known or not old or known.key != key_of(each, fleet.digest(number)):
            needed += each.size - old
    free = shutil.disk_usage(fleet.folder).free
    if needed and needed + largest > free and not _shares(next(iter(originals.values())).path):
        raise BuildError(
            f"{fleet.folder}: the ISOs of the sites need {size(needed + largest)}, and {size(free)} are free",
            hint="free space there, or give fewer sites at a time",
        )


def _shares(path: Path) -> bool:
    """Whether copies of this file share its blocks: then they need hardly any space."""
    probe = path.with_name(".probe.part")
    try:
        with path.open("rb") as source, probe.open("wb") as target:
            return clone(source.fileno(), target.fileno())
    finally:
        probe.unlink(missing_ok=True)


def _report(fleet: Fleet, writer: Writer, seconds: float) -> None:
    """What there is now. Raises BuildError for sites that have no ISO."""
    index = f"build/{fleet.session.plan.environment}/{FOLDER}/{siteindex.NAME}"
    sys.stdout.write(f"{count(len(fleet), 'site')}: {writer.written:,} written, {writer.kept:,} as they were\n")
    asked = {site.name for site in fleet.sites() if isinstance(site, Site)}
    if gone := sorted(set(fleet.index.sites(fleet.options.kind)) - asked):
        sys.stdout.write(f"not asked for any more, and left as they are: {_some(gone)}\n")
    sys.stdout.write(f"index: {index}\n")
    left = len(fleet) - writer.written - writer.kept
    if writer.full:
        raise BuildError(
            f"{fleet.folder}: the disk is full; {left:,} of {len(fleet):,} sites have no ISO of now, "
            f"{writer.full} is the first of them",
            hint="free space there; the same call goes on where it stopped",
        )
    if writer.failed:
        lines = list(writer.failed.values())
        more = [f"and {len(lines) - SHOWN:,} more"] if len(lines) > SHOWN else []
        raise BuildError(
            f"{len(lines):,} of {len(fleet):,} sites failed:\n  " + "\n  ".join([*lines[:SHOWN], *more]),
            hint="all others are done; the same call tries only these again",
        )
    fleet.session.say(f"done in {seconds:.1f} s")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
