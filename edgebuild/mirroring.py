"""`inv mirror.…`: all that environments pull from elsewhere listed, exported, imported and checked."""

import contextlib
import errno
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgebuild import mirror, report
from edgebuild.errors import EdgebuildError, InputError, RegistryError, ToolError, VerificationError
from edgebuild.layout import WHEELS, Layout
from edgebuild.locking import locked
from edgebuild.packages import package_distributions
from edgebuild.plan import mirrored
from edgebuild.pulls import Pull, kubernetes_tags, merged, mirror_lines, pulled_images
from edgebuild.references import split_reference
from edgebuild.run import CommandFailed, run
from edgebuild.session import Session, prepare
from edgebuild.transport import Patience
from edgebuild.values import check_registry

REQUIREMENTS = "requirements.lock"
MOST_JOBS = 64
ONE_TRY = Patience(connect_seconds=5.0, read_seconds=15.0, attempts=1)  # a list may have gaps


def plan(sessions: Sequence[Session], *, as_json: bool) -> None:
    """Print everything that these environments pull, with sizes where the registries tell them."""
    unknown: list[str] = []
    registries = mirror.Registries(ONE_TRY)
    pulls = _pulls(sessions, registries, unknown)
    looked = mirror.look(registries, pulls)
    rows = [_row(pull, found) for pull, found in zip(pulls, looked, strict=True)]
    packages = _packages(sessions)
    wheels = _wheel_count(sessions[0].root)
    if as_json:
        content = {
            "images": rows,
            "unknown": unknown,
            "packages": packages,
            "wheels": {"file": REQUIREMENTS, "count": wheels},
        }
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
        return
    table = [("image", "digest", "size", "platforms", "environments")]
    for row in rows:
        size = report.size(row["bytes"]) if row["bytes"] else "unknown"
        names = ", ".join(row["environments"])
        table.append((row["source"], row["digest"][:19] or "by tag", size, ", ".join(row["platforms"]), names))
    sys.stdout.write(report.table(table) if rows else "no images: the base is made from packages\n")
    there = [each for each in looked if isinstance(each, mirror.Found)]
    blobs = {blob for each in there for blob in each.tree.blobs}
    if there:
        of_blobs = report.size(sum(blob.size for blob in blobs))
        sys.stdout.write(f"\n{report.count(len(there), 'image')}, {of_blobs} of blobs, each once\n")
    for problem in [*unknown, *(row["problem"] for row in rows if row["problem"])]:
        sys.stdout.write(f"unknown: {problem}\n")
    for name, mirrors in packages.items():
        sys.stdout.write(
            f"packages of {name}: {mirrors or 'from where the images say; package_mirrors names none'}\n"
        )
    sys.stdout.write(f"Python: {wheels} wheels of {REQUIREMENTS}; pip tells their sizes when it downloads\n")
    if loose := [row["source"] for row in rows if not row["pinned"]]:
        sys.stdout.write(f"note: {report.count(len(loose), 'image')} named by tag only; ./inv lock pins by digest\n")


def _row(pull: Pull, found: mirror.Found | EdgebuildError) -> dict[str, Any]:
    is_there = isinstance(found, mirror.Found)
    return {
        **asdict(pull),
        "digest": found.tree.root.digest if isinstance(found, mirror.Found) else pull.digest,
        "pinned": bool(pull.digest),
        "bytes": found.tree.size if isinstance(found, mirror.Found) else None,
        "problem": "" if is_there else str(getattr(found, "message", "")),
    }


def export(sessions: Sequence[Session], to: Path, *, wheels: bool = True, jobs: int = 0) -> None:
    """Put all images and wheels into the folder `to`; what is there and whole is not fetched again."""
    say, layout, registries = sessions[0].say, Layout(to), mirror.Registries()
    pulls = _pulls(sessions, registries)
    with disk_errors(to):
        layout.begin()
        lock = to / ".lock"
        with locked(lock, say, "mirror"):
            say(f"asking registries for {report.count(len(pulls), 'image')}")
            found = mirror.found_all(mirror.look(registries, pulls))
            say(f"exporting {report.count(len(found), 'image')} to {to}")
            fetched = mirror.export_images(layout, registries, found, say, _at_once(jobs))
            if wheels:
                _download_wheels(sessions[0], to / WHEELS)
            say("writing SHA256SUMS")
            lock.unlink()  # no part of the mirror; who waits for it makes one anew
            layout.sum_up()
    sys.stdout.write(f"{to}: {report.count(len(layout.entries()), 'image')}, {report.size(fetched)} fetched now\n")
    sys.stdout.write(f"next, where this folder is: ./inv mirror.import --from {to} --to REGISTRY\n")


def _download_wheels(session: Session, to: Path) -> None:
    """The wheels of requirements.lock for this Python and machine, by pip with the user's own configuration of it."""
    session.say(f"downloading the wheels of {REQUIREMENTS}")
    to.mkdir(exist_ok=True)
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    argv += ["--require-hashes", "--only-binary", ":all:", "--dest", str(to), "-r", str(session.root / REQUIREMENTS)]
    try:
        run(argv)
    except CommandFailed as error:
        raise ToolError(
            f"pip could not download the wheels: {error}", hint="is a package index reachable?"
        ) from error


def import_(sessions: Sequence[Session], source: Path | None, to: str, *, jobs: int = 0) -> None:
    """Push the images of a folder, or straight from their registries, below the registry `to`."""
    say = sessions[0].say
    target = mirror.Import(_target(to), say, _at_once(jobs))
    if source:
        layout = Layout(source)
        sources = [entry.name for entry in layout.entries()]
        say(f"importing {report.count(len(sources), 'image')} into {to}")
        mirror.import_folder(layout, target)
    else:
        found = mirror.found_all(mirror.look(target.registries, _pulls(sessions, target.registries)))
        sources = [each.pull.source for each in found]
        say(f"copying {report.count(len(found), 'image')} to {to}")
        mirror.import_registry(found, target)
    sys.stdout.write(f"{to}: {report.count(len(sources), 'image')}, {report.size(target.sent_bytes)} sent\n")
    if hosts := {split_reference(each)[0] for each in sources}:
        sys.stdout.write("\n" + mirror_lines({host: f"{to}/{host}" for host in hosts}))


def check(sessions: Sequence[Session], source: Path | None, registry: str) -> None:
    """Read every byte of a folder, of a registry below this address, or of both. Raises VerificationError."""
    problems: list[str] = []
    images: list[tuple[str, str, Sequence[str]]] = []
    if not source and not registry:
        raise InputError("mirror.check needs --from FOLDER, --registry REGISTRY, or both")
    if source:
        layout = Layout(source)
        entries = layout.entries()
        problems += layout.problems()
        images = [(entry.name, entry.root.digest, entry.platforms) for entry in entries]
    if registry:
        registries = mirror.Registries()
        if not source:
            pulls = _pulls(sessions, registries)
            if loose := [pull.source for pull in pulls if not pull.digest]:
                hint = "./inv lock pins them, or name the folder too: --from FOLDER"
                raise InputError(f"without a digest nothing can be compared: {', '.join(loose)}", hint=hint)
            images = [(pull.source, pull.digest, pull.platforms) for pull in pulls]
        problems += mirror.check_registry(registries, _target(registry), images)
    if problems:
        shown = "".join(f"\n  {problem}" for problem in problems)
        where = " and ".join(filter(None, (str(source or ""), registry)))
        raise VerificationError(
            f"the mirror in {where} is not whole: {report.count(len(problems), 'problem')}{shown}",
            hint="./inv mirror.export, then ./inv mirror.import: what is whole is neither fetched nor sent again",
        )
    sys.stdout.write(f"{report.count(len(images), 'image')}: every byte is what its digest says\n")


def _at_once(jobs: int) -> int:
    if not 0 <= jobs <= MOST_JOBS:
        raise InputError(f"--jobs {jobs}: expected 1 to {MOST_JOBS}")
    return jobs or mirror.JOBS


def _target(to: str) -> str:
    if not to:
        raise InputError("mirror.import needs --to REGISTRY", hint="--to registry.example.com/mirror")
    try:
        return check_registry(to)
    except ValueError as error:
        raise InputError(f"{to}: {error}") from error


def _pulls(
    sessions: Sequence[Session], registries: mirror.Registries, unknown: list[str] | None = None
) -> list[Pull]:
    """The images of all these environments. Raises InputError for a lock that is stale.

    With `unknown` a package repository that cannot be asked is noted there, instead of a RegistryError.
    """
    found: list[Pull] = []
    for session in sessions:
        environment, name = session.environment, session.plan.environment
        text = prepare(session, with_secrets=False).texts["Dockerfile"]
        found += pulled_images(name, environment, session.lock, text)
        try:
            found += _kubernetes(session, registries)
        except RegistryError as error:
            if unknown is None:
                raise
            unknown.append(f"Kubernetes packages of {name}: {error.message}")
    return merged(found)


def _kubernetes(session: Session, registries: mirror.Registries) -> list[Pull]:
    """The Kubernetes packages, which luet pulls as images by their tags."""
    environment = session.environment
    repository = environment.images.k8s_package_repository
    if environment.kubernetes.payload != "luet" or not repository:
        return []
    asked = mirrored(repository, environment.registries.mirrors)
    registry, path, _ = registries.of(asked)
    tags = [str(tag) for page in registry.pages(path, "tags/list") for tag in page.get("tags") or []]
    platform = f"linux/{environment.os.arch}"
    return [
        Pull(f"{repository}:{tag}", f"{asked}:{tag}", "", (platform,), (session.plan.environment,))
        for tag in kubernetes_tags(environment, tags)
    ]


def _packages(sessions: Sequence[Session]) -> dict[str, str]:
    """Distribution to the package mirror that the environments name for it."""
    found: dict[str, str] = {}
    for session in sessions:
        for name in package_distributions(session.environment):
            found[name] = session.environment.package_mirrors.get(name, "") or found.get(name, "")
    return found


def _wheel_count(root: Path) -> int:
    lines = (root / REQUIREMENTS).read_text(encoding="utf-8").splitlines()
    return sum("==" in line and not line.startswith((" ", "#")) for line in lines)


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """A disk that is full, or may not be written, as a clear error."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}:
            raise
        raise EdgebuildError(
            f"{folder}: {error.strerror}",
            hint="make room, or name a folder elsewhere, and export again: what is whole is not fetched again",
        ) from error
