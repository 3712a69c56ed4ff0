"""Software bills of materials: what dpkg and rpm say is installed, as CycloneDX 1.6. Pure."""

import json
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from edgebuild.errors import BuildError

# The commands whose output is read here; they read the root file system that they run in.
DPKG_FIELDS = (
    "Package",
    "Version",
    "Architecture",
    "source:Package",
    "source:Version",
    "Maintainer",
    "db:Status-Status",
)
DPKG_QUERY = ("dpkg-query", "-W", "-f", "\\t".join(f"${{{name}}}" for name in DPKG_FIELDS) + "\\n")
RPM_FIELDS = ("NAME", "EPOCHNUM", "VERSION", "RELEASE", "ARCH", "SOURCERPM", "VENDOR")
RPM_QUERY = ("rpm", "-qa", "--qf", "\\t".join(f"%{{{name}}}" for name in RPM_FIELDS) + "\\n")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+~^-]*")
MARK = "== "
# Prints all that a bill needs, for an image with no more than a POSIX shell. rpm wants to write beside its database.
INVENTORY = f"""set -e
echo "{MARK}os-release"
[ ! -f /etc/os-release ] || cat /etc/os-release
if [ -s /var/lib/dpkg/status ]; then
    printf '\\n{MARK}dpkg\\n'
    cat /var/lib/dpkg/status
fi
if command -v rpm >/dev/null; then
    cp -r "$(rpm --eval %_dbpath)" /tmp/rpm-database
    printf '\\n{MARK}rpm\\n'
    {RPM_QUERY[0]} --dbpath /tmp/rpm-database {RPM_QUERY[1]} {RPM_QUERY[2]} '{RPM_QUERY[3]}'
fi
"""

ROOT = "subject"
NAMESPACE = uuid.UUID("6e4bd5f4-6a8f-5e0c-8f3b-0c8d3f1f5a55")  # of the serial numbers
# Vendors by the package-url specification, where they are not called as os-release's ID.
VENDORS = {"opensuse-leap": "opensuse", "opensuse-tumbleweed": "opensuse", "sles": "suse", "rhel": "redhat"}
ABSENT = {"", "(none)"}


@dataclass(frozen=True, order=True)
class Package:
    """One installed package. `version` is the package manager's, for rpm without epoch."""

    kind: Literal["deb", "rpm"]
    name: str
    version: str
    architecture: str
    epoch: int = 0  # rpm's
    source: str = ""  # as in the qualifier `upstream`; empty when it is named and numbered alike
    supplier: str = ""


@dataclass(frozen=True)
class Part:
    """Something in a subject that no package manager knows, such as Kubernetes."""

    name: str
    version: str


@dataclass(frozen=True)
class Subject:
    """What a bill is about. `digest` is sha256:…, of an image's id or manifest or of the file."""

    name: str
    version: str
    digest: str
    kind: Literal["image", "root-filesystem"]
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class Inventory:
    """What INVENTORY printed, read: installed packages, and the text of os-release."""

    packages: tuple[Package, ...]
    os_release: str


def parse_inventory(text: str) -> Inventory:
    """Raises BuildError where the text is none, or holds no package."""
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.split("\n"):
        if line.startswith(MARK):
            lines = sections.setdefault(line.removeprefix(MARK), [])
        else:
            lines.append(line)
    texts = {name: "\n".join(found).strip("\n") for name, found in sections.items()}
    packages = [*parse_dpkg_status(texts.get("dpkg", "")), *parse_rpm(texts.get("rpm", ""))]
    if not packages:
        raise BuildError("neither dpkg nor rpm knows a package in it", hint="a bill of materials needs one of them")
    return Inventory(tuple(packages), texts.get("os-release", "") + "\n")


def parse_dpkg(text: str) -> list[Package]:
    """The output of DPKG_QUERY. Raises BuildError with the line that is none."""
    found = set()
    for fields in _rows(text, DPKG_FIELDS, DPKG_QUERY[0]):
        name, version, architecture, source, source_version, maintainer, status = fields
        if status == "installed":
            found.add(_deb(name, version, architecture, source, source_version, maintainer))
    return sorted(found)


def parse_dpkg_status(text: str) -> list[Package]:
    """The text of /var/lib/dpkg/status: the same as parse_dpkg, with no program to run in the root file system."""
    found = set()
    for stanza in text.split("\n\n"):
        pairs = (line.partition(":") for line in stanza.split("\n") if line[:1].strip())
        fields = {name.lower(): value.strip() for name, _, value in pairs}
        if fields.get("status", "").split()[-1:] != ["installed"]:
            continue
        try:
            name, version, architecture = (fields[key] for key in ("package", "version", "architecture"))
        except KeyError as error:
            raise BuildError(f"dpkg's status file: a package has no {error.args[0]}:\n{stanza[:200]}") from error
        if not NAME.fullmatch(name):
            raise BuildError(f"dpkg's status file: {name[:200]!r} is no package name")
        source, _, source_version = fields.get("source", name).partition(" ")
        source_version = source_version.strip("()") or version
        found.add(_deb(name, version, architecture, source, source_version, fields.get("maintainer", "")))
    return sorted(found)


def _deb(name: str, version: str, architecture: str, source: str, source_version: str, supplier: str) -> Package:
    upstream = "" if (source, source_version) == (name, version) else source
    if source_version != version:
        upstream += f"@{source_version}"
    return Package("deb", name, version, architecture, source=upstream, supplier=supplier)


def parse_rpm(text: str) -> list[Package]:
    """The output of RPM_QUERY, without the keys that rpm lists as packages. Raises BuildError."""
    found = set()
    for name, epoch, version, release, architecture, source, vendor in _rows(text, RPM_FIELDS, RPM_QUERY[0]):
        if name == "gpg-pubkey":
            continue
        if not epoch.isdecimal():
            raise BuildError(f"rpm: {name} has the epoch {epoch!r}, which is no number")
        found.add(
            Package(
                "rpm",
                name,
                f"{version}-{release}",
                architecture,
                epoch=int(epoch),
                source="" if source in ABSENT else source,
                supplier="" if vendor in ABSENT else vendor,
            )
        )
    return sorted(found)


def _rows(text: str, names: Sequence[str], program: str) -> Iterable[list[str]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line:
            continue
        fields = line.split("\t")
        if len(fields) != len(names) or not NAME.fullmatch(fields[0]):
            raise BuildError(f"{program}: line {number} is no package: {line[:200]!r}")
        yield fields


def bills(
    subjects: Sequence[Subject],
    packages: Iterable[Package],
    os_release: Mapping[str, str],
    *,
    epoch: int,
    version: str,
) -> list[str]:
    """A CycloneDX document for each of the subjects, which all hold these packages."""
    document = common_document(packages, os_release, epoch=epoch, version=version)
    return [bill(document, subject) for subject in subjects]


def common_document(
    packages: Iterable[Package], os_release: Mapping[str, str], *, epoch: int, version: str
) -> dict[str, Any]:
    """The document of all subjects that hold these packages, without a subject.

    `os_release` is that of the subjects; `epoch` is the date of all documents, in seconds since 1970; `version`
    that of edgebuild. Costs a millisecond for each package.
    """
    return _document(sorted(set(packages)), os_release, epoch, version)


def bill(document: Mapping[str, Any], subject: Subject) -> str:
    """The common document with this subject, and the serial number that its content has, as JSON."""
    algorithm, _, value = subject.digest.partition(":")
    if algorithm != "sha256" or len(value) != 64:
        raise BuildError(f"{subject.name}: {subject.digest!r} is no sha256 digest")
    parts = [_part(each) for each in sorted(subject.parts, key=lambda part: (part.name, part.version))]
    component = {
        **document["metadata"]["component"],
        "type": "container" if subject.kind == "image" else "operating-system",
        "name": subject.name,
        "version": subject.version,
        "hashes": [{"alg": "SHA-256", "content": value}],
    }
    named = {
        **document,
        "metadata": {**document["metadata"], "component": component},
        "components": [*document["components"], *parts],
        "dependencies": [_depending(each, [part["bom-ref"] for part in parts]) for each in document["dependencies"]],
    }
    serial = uuid.uuid5(NAMESPACE, json.dumps(named, sort_keys=True))
    return json.dumps({**named, "serialNumber": f"urn:uuid:{serial}"}, indent=1, sort_keys=True) + "\n"


def _part(part: Part) -> dict[str, str]:
    from packageurl import PackageURL

    url = PackageURL("generic", None, part.name, part.version).to_string()
    return {"bom-ref": url, "name": part.name, "purl": url, "type": "application", "version": part.version}


def _depending(entry: dict[str, Any], parts: list[str]) -> dict[str, Any]:
    """The subject depends on its own parts too."""
    return {**entry, "dependsOn": [*entry["dependsOn"], *parts]} if entry["ref"] == ROOT and parts else entry


def _document(packages: Sequence[Package], os_release: Mapping[str, str], epoch: int, version: str) -> dict[str, Any]:
    """The document of a subject without name."""
    # Imported here: it takes as long as all of `inv plan`.
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.contact import OrganizationalEntity
    from cyclonedx.model.dependency import Dependency
    from cyclonedx.output.json import JsonV1Dot6

    root = Component(type=ComponentType.CONTAINER, name=ROOT, bom_ref=ROOT)
    distribution = Component(
        type=ComponentType.OPERATING_SYSTEM,
        name=os_release.get("ID", "linux"),
        version=os_release.get("VERSION_ID") or None,
        description=os_release.get("PRETTY_NAME") or None,
        bom_ref="distribution",
    )
    components = [distribution]
    for package in packages:
        purl = package_url(package, os_release)
        components.append(
            Component(
                type=ComponentType.LIBRARY,
                name=package.name,
                version=purl.version,
                purl=purl,
                bom_ref=purl.to_string(),
                supplier=OrganizationalEntity(name=package.supplier) if package.supplier else None,
            )
        )
    bom = Bom(
        serial_number=NAMESPACE,  # until the content is complete; by itself the library draws one
        components=components,
        # register_dependency looks through all that is there, for each component
        dependencies=[Dependency(root.bom_ref, [Dependency(each.bom_ref) for each in components])],
    )
    bom.metadata.component = root
    bom.metadata.timestamp = datetime.fromtimestamp(epoch, UTC)
    bom.metadata.tools.components.add(Component(type=ComponentType.APPLICATION, name="edgebuild", version=version))
    found: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    return found


def package_url(package: Package, os_release: Mapping[str, str]) -> Any:
    """The packageurl.PackageURL of a package, with its distribution and where it comes from."""
    from packageurl import PackageURL

    identity, version = os_release.get("ID", ""), os_release.get("VERSION_ID", "")
    qualifiers = {"arch": package.architecture, "distro": "-".join(filter(None, (identity, version)))}
    qualifiers |= {"upstream": package.source, "epoch": str(package.epoch or "")}
    return PackageURL(
        package.kind,
        VENDORS.get(identity, identity) or None,
        package.name,
        package.version,
        {key: value for key, value in qualifiers.items() if value},
    )
