"""Package lists in, bills of materials out."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgebuild import sbom
from edgebuild.errors import BuildError
from edgebuild.sbom import Package, Subject

DEBIAN = {"ID": "debian", "VERSION_ID": "12", "PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)"}
LEAP = {"ID": "opensuse-leap", "VERSION_ID": "15.6"}
DPKG = """\
bash\t5.2.15-2+b7\tamd64\tbash\t5.2.15-2\tMatthias Klose <doko@debian.org>\tinstalled
libc6\t2.36-9+deb12u10\tamd64\tglibc\t2.36-9+deb12u10\tGNU Libc <debian-glibc@lists.debian.org>\tinstalled
libc6\t2.36-9+deb12u10\ti386\tglibc\t2.36-9+deb12u10\tGNU Libc <debian-glibc@lists.debian.org>\tinstalled
old\t1\tall\told\t1\tNobody\tconfig-files
base-files\t12.4+deb12u11\tall\tbase-files\t12.4+deb12u11\t\tinstalled
"""
STATUS = """\
Package: bash
Status: install ok installed
Architecture: amd64
Source: bash (5.2.15-2)
Version: 5.2.15-2+b7
Maintainer: Matthias Klose <doko@debian.org>
Description: GNU Bourne Again SHell
 Version: of a line that goes on

Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc
Version: 2.36-9+deb12u10
Maintainer: GNU Libc <debian-glibc@lists.debian.org>

Package: libc6
Status: install ok installed
Architecture: i386
Source: glibc
Version: 2.36-9+deb12u10
Maintainer: GNU Libc <debian-glibc@lists.debian.org>

Package: old
Status: deinstall ok config-files
Architecture: all
Version: 1

Package: base-files
Status: install ok installed
Architecture: all
Version: 12.4+deb12u11
"""
RPM = """\
bash\t0\t4.4\t150400.27.3.2\tx86_64\tbash-4.4-150400.27.3.2.src.rpm\tSUSE LLC <https://www.suse.com/>
shadow\t4\t4.8.1\t150600.17\tx86_64\tshadow-4.8.1-150600.17.src.rpm\t(none)
gpg-pubkey\t0\t29b700a4\t62b07e22\t(none)\t(none)\t(none)
"""
SUBJECT = Subject("registry.example.com/edge/ubuntu", "k3s-1.33.6-demo", "sha256:" + "ab" * 32, "image")


def bill(packages: list[Package], os_release: dict[str, str] = DEBIAN, subject: Subject = SUBJECT) -> str:
    return sbom.bills([subject], packages, os_release, epoch=1704067200, version="0.1")[0]


def test_dpkg() -> None:
    packages = sbom.parse_dpkg(DPKG)
    assert packages == [
        Package("deb", "base-files", "12.4+deb12u11", "all"),
        Package(
            "deb",
            "bash",
            "5.2.15-2+b7",
            "amd64",
            source="bash@5.2.15-2",
            supplier="Matthias Klose <doko@debian.org>",
        ),
        *(
            Package(
                "deb",
                "libc6",
                "2.36-9+deb12u10",
                arch,
                source="glibc",
                supplier="GNU Libc <debian-glibc@lists.debian.org>",
            )
            for arch in ("amd64", "i386")
        ),
    ]
    assert sbom.parse_dpkg_status(STATUS) == packages


def test_rpm() -> None:
    assert sbom.parse_rpm(RPM) == [
        Package(
            "rpm",
            "bash",
            "4.4-150400.27.3.2",
            "x86_64",
            source="bash-4.4-150400.27.3.2.src.rpm",
            supplier="SUSE LLC <https://www.suse.com/>",
        ),
        Package("rpm", "shadow", "4.8.1-150600.17", "x86_64", epoch=4, source="shadow-4.8.1-150600.17.src.rpm"),
    ]


@pytest.mark.parametrize(
    ("text", "parse", "said"),
    [
        ("dpkg-query: error\n", sbom.parse_dpkg, "dpkg-query: line 1 is no package"),
        (DPKG + "\t\t\t\t\t\t\n", sbom.parse_dpkg, "line 6"),
        ("Package: x\nStatus: install ok installed\n", sbom.parse_dpkg_status, "has no version"),
        ("error: rpmdb\n", sbom.parse_rpm, "rpm: line 1"),
        ("a\t(none)\t1\t1\tnoarch\tx\ty\n", sbom.parse_rpm, "which is no number"),
    ],
)
def test_other_text_is_an_error(text: str, parse: object, said: str) -> None:
    with pytest.raises(BuildError, match=said):
        parse(text)  # type: ignore[operator]


def test_package_urls() -> None:
    urls = [sbom.package_url(package, DEBIAN).to_string() for package in sbom.parse_dpkg(DPKG)]
    assert urls[:3] == [
        "pkg:deb/debian/base-files@12.4%2Bdeb12u11?arch=all&distro=debian-12",
        "pkg:deb/debian/bash@5.2.15-2%2Bb7?arch=amd64&distro=debian-12&upstream=bash%405.2.15-2",
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12&upstream=glibc",
    ]
    assert [sbom.package_url(package, LEAP).to_string() for package in sbom.parse_rpm(RPM)] == [
        "pkg:rpm/opensuse/bash@4.4-150400.27.3.2?arch=x86_64&distro=opensuse-leap-15.6&upstream=bash-4.4-150400.27.3.2.src.rpm",
        "pkg:rpm/opensuse/shadow@4.8.1-150600.17?arch=x86_64&distro=opensuse-leap-15.6&epoch=4&upstream=shadow-4.8.1-150600.17.src.rpm",
    ]


def test_the_document() -> None:
    found = json.loads(bill(sbom.parse_dpkg(DPKG)))
    assert (found["bomFormat"], found["specVersion"], found["version"]) == ("CycloneDX", "1.6", 1)
    metadata = found["metadata"]
    assert metadata["timestamp"] == "2024-01-01T00:00:00+00:00"
    assert metadata["component"] == {
        "bom-ref": "subject",
        "type": "container",
        "name": SUBJECT.name,
        "version": SUBJECT.version,
        "hashes": [{"alg": "SHA-256", "content": "ab" * 32}],
    }
    assert [(tool["name"], tool["version"]) for tool in metadata["tools"]["components"]] == [("edgebuild", "0.1")]
    parts = {component["bom-ref"]: component for component in found["components"]}
    assert parts["distribution"]["name"] == "debian"
    assert parts["distribution"]["version"] == "12"
    bash = parts["pkg:deb/debian/bash@5.2.15-2%2Bb7?arch=amd64&distro=debian-12&upstream=bash%405.2.15-2"]
    assert bash["purl"] == bash["bom-ref"]
    assert (bash["name"], bash["version"], bash["supplier"]["name"].split()[0]) == ("bash", "5.2.15-2+b7", "Matthias")
    depends = {each["ref"]: set(each.get("dependsOn", [])) for each in found["dependencies"]}
    assert depends["subject"] == set(parts)


def test_the_same_content_is_the_same_document() -> None:
    packages = sbom.parse_dpkg(DPKG)
    first = bill(packages)
    shuffled = [*packages, packages[0]]
    random.Random(3).shuffle(shuffled)  # noqa: S311 - an order, no secret
    assert bill(shuffled) == first
    others = [
        bill(packages[1:]),
        bill(packages, {**DEBIAN, "VERSION_ID": "13"}),
        bill(packages, subject=Subject(SUBJECT.name, SUBJECT.version, "sha256:" + "cd" * 32, "image")),
        bill(packages, subject=Subject(SUBJECT.name, SUBJECT.version, SUBJECT.digest, "root-filesystem")),
    ]
    assert len({json.loads(text)["serialNumber"] for text in [first, *others]}) == 5


def test_many_subjects_differ_in_their_head_only() -> None:
    packages = sbom.parse_dpkg(DPKG)
    other = Subject("other", "2", "sha256:" + "12" * 32, "root-filesystem")
    both = sbom.bills([SUBJECT, other], packages, DEBIAN, epoch=1704067200, version="0.1")
    assert both == [bill(packages), bill(packages, subject=other)]
    one, two = map(json.loads, both)
    assert one["components"] == two["components"]
    assert two["metadata"]["component"]["type"] == "operating-system"


def test_parts_that_no_package_manager_knows() -> None:
    packages = sbom.parse_dpkg(DPKG)
    parts = (sbom.Part("k3s", "1.33.6"), sbom.Part("agent", "v4.9.38"))
    subject = Subject(SUBJECT.name, SUBJECT.version, SUBJECT.digest, "image", parts)
    plain, found = json.loads(bill(packages)), json.loads(bill(packages, subject=subject))
    added = found["components"][len(plain["components"]) :]
    assert [(part["name"], part["version"], part["purl"]) for part in added] == [
        ("agent", "v4.9.38", "pkg:generic/agent@v4.9.38"),
        ("k3s", "1.33.6", "pkg:generic/k3s@1.33.6"),
    ]
    depends = {each["ref"]: each.get("dependsOn", []) for each in found["dependencies"]}
    assert set(depends["subject"]) == {component["bom-ref"] for component in found["components"]}
    assert found["serialNumber"] != plain["serialNumber"]


def test_an_inventory() -> None:
    os_release = 'ID=debian\nVERSION_ID="12"'
    both = sbom.parse_inventory(f"== os-release\n{os_release}\n\n== dpkg\n{STATUS}\n== rpm\n{RPM}")
    assert both.packages == (*sbom.parse_dpkg(DPKG), *sbom.parse_rpm(RPM))
    assert both.os_release == os_release + "\n"
    assert sbom.parse_inventory(f"== os-release\n== rpm\n{RPM}").packages == tuple(sbom.parse_rpm(RPM))
    for text in ("", "== os-release\nID=debian\n", "sh: not found\n"):
        with pytest.raises(BuildError, match="neither dpkg nor rpm"):
            sbom.parse_inventory(text)


def test_a_subject_without_digest_is_an_error() -> None:
    with pytest.raises(BuildError, match="'' is no sha256 digest"):
        bill([], subject=Subject("x", "1", "", "image"))


def test_no_packages_and_no_os_release() -> None:
    found = json.loads(bill([], {}))
    assert [component["name"] for component in found["components"]] == ["linux"]


FIELD = st.text(st.characters(exclude_characters="\t"), max_size=12)
LINES = st.lists(st.lists(FIELD, min_size=6, max_size=8).map("\t".join)).map("\n".join)
STANZAS = st.lists(
    st.dictionaries(st.sampled_from(["Package", "Status", "Architecture", "Version", "Source", "Maintainer"]), FIELD)
).map(lambda found: "\n\n".join("\n".join(f"{key}: {value}" for key, value in each.items()) for each in found))
INSTALLED = STANZAS.map(lambda text: text.replace("Status: ", "Status: install ok installed\nX: "))


@settings(max_examples=300)
@given(st.one_of(LINES, STANZAS, INSTALLED, st.text()), st.dictionaries(st.sampled_from(["ID", "VERSION_ID"]), FIELD))
def test_any_text_gives_a_document_or_says_what_is_wrong(text: str, os_release: dict[str, str]) -> None:
    for parse in (sbom.parse_dpkg, sbom.parse_dpkg_status, sbom.parse_rpm):
        try:
            packages = parse(text)
        except BuildError:
            continue
        assert json.loads(bill(packages, os_release))["bomFormat"] == "CycloneDX"
