"""The sites that are asked for, read and rendered: all that can be wrong is found before anything is written."""

import glob
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgebuild import cloudconfig
from edgebuild.errors import SHOWN, InputError
from edgebuild.keyed import Keyed
from edgebuild.padding import padded
from edgebuild.session import Session
from edgebuild.siteindex import SiteIndex
from edgebuild.sites import Flaw, Flaws, Names, Site, decoded, document, rows

KINDS = ("iso", "cidata")
TEMPLATE = "user-data.j2"
DIGEST_BYTES = 32


@dataclass(frozen=True)
class Options:
    """What is asked for. `sites`: a CSV file, or a pattern of YAML files; `template`: of user-data."""

    sites: str
    kind: str = "iso"
    template: str = ""
    jobs: int = 0


@dataclass
class Fleet:
    """All sites, rendered once and found good: of each the keyed hash of its user-data, and its length in bytes."""

    session: Session
    options: Options
    files: list[tuple[str, bytes]]
    template: str
    names: dict[str, object]
    index: SiteIndex
    hashes: bytearray = field(default_factory=bytearray)
    keyed: Keyed = field(init=False)
    lengths: "array[int]" = field(default_factory=lambda: array("I"))

    def __post_init__(self) -> None:
        self.keyed = Keyed(self.session.root)

    @property
    def folder(self) -> Path:
        return self.index.folder

    def __len__(self) -> int:
        return len(self.lengths)

    def sites(self) -> Iterator[Site | Flaw]:
        """Read from the texts, again in each pass: values of 100,000 sites are not held."""
        for source, data in self.files:
            text = decoded(data, source)
            if isinstance(text, Flaw):
                yield text
            elif source.endswith((".yaml", ".yml")):
                yield from document(text, source, Path(source).stem)
            else:
                yield from rows(text, source)

    def render(self, site: Site) -> str:
        """The site's user-data. Raises InputError."""
        source = self.options.template or TEMPLATE
        return cloudconfig.render_user_data(self.template, {**self.names, "site": dict(site.values)}, source=source)

    def digest(self, number: int) -> str:
        """The keyed hash of a site's user-data, in hex."""
        return self.hashes[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES].hex()


def check_options(options: Options) -> None:
    if options.kind not in KINDS:
        raise InputError(f"--kind: {options.kind!a}; choose {' or '.join(KINDS)}")
    if options.jobs < 0:
        raise InputError(f"--jobs: {options.jobs}; a number of ISOs that are written at the same time")


def read_sites(pattern: str) -> list[tuple[str, bytes]]:
    if not pattern:
        raise InputError("site-isos needs --sites", hint="--sites sites.csv, or --sites 'sites/*.yaml'")
    paths = [pattern] if Path(pattern).exists() else sorted(glob.glob(pattern))  # noqa: PTH207 - Path's takes no absolute pattern
    if not paths:
        raise InputError(f"--sites: {pattern} does not exist")
    files = []
    for path in paths:
        if Path(path).is_dir():
            raise InputError(f"--sites: {path} is a folder", hint=f"--sites '{path.rstrip('/')}/*.yaml'")
        try:
            files.append((path, Path(path).read_bytes()))
        except OSError as error:
            raise InputError(f"--sites: {path} cannot be read: {error.strerror}") from error
    return files


def read_template(session: Session, options: Options) -> str:
    path = Path(options.template) if options.template else session.root / TEMPLATE
    shown = options.template or TEMPLATE
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{shown}: not UTF-8 text: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise InputError(f"{shown}: cannot be read: {error.strerror}") from error


def check(fleet: Fleet) -> None:
    """Read all sites, then render all. Raises one InputError with everything that is wrong in either."""
    flaws, names, count = Flaws(), Names(), 0
    for site in fleet.sites():
        flaw = site if isinstance(site, Flaw) else names.flaw(site)
        count += 1
        if flaw:
            flaws.add(flaw)
    if not count:
        flaws.add(Flaw(fleet.options.sites, "no site"))
    _raise(fleet, flaws)
    fleet.session.say(f"rendering and checking the user-data of {count:,} sites")
    if not cloudconfig.is_for_sites(fleet.template):
        source = fleet.options.template or TEMPLATE
        fleet.session.say(
            f"note: {source} asks for no value of a site, `{{{{ site.name }}}}`: all of them get the same"
        )
    for site in fleet.sites():
        if isinstance(site, Site):
            _check_site(fleet, site, flaws)
    _raise(fleet, flaws)


def _check_site(fleet: Fleet, site: Site, flaws: Flaws) -> None:
    try:
        text = fleet.render(site)
    except InputError as error:
        flaws.add(Flaw(site.where, error.message.replace("'dict object' has no attribute", "no value named")))
        return
    data = text.encode(errors="surrogatepass")
    digest = fleet.keyed.digest(data)
    known = fleet.index.get(site.name, fleet.options.kind)
    if not known or known.user_data != digest:  # else it has passed before
        for problem in cloudconfig.check_user_data(text, source=fleet.options.template or TEMPLATE):
            flaws.add(Flaw(site.where, problem))
    fleet.hashes += bytes.fromhex(digest)
    fleet.lengths.append(len(padded(data)))


def _raise(fleet: Fleet, flaws: Flaws) -> None:
    if flaws.count:
        word = "problem" if flaws.count == 1 else "problems"
        raise InputError(
            f"{flaws.count:,} {word} in the sites:\n  " + "\n  ".join(flaws.lines(SHOWN)),
            hint=f"no ISO was written; the values are those of {fleet.options.sites}",
        )
