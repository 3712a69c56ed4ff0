"""Bills of materials of real package databases, checked against CycloneDX's own schema."""

import json
import os
import shutil
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from edgebuild import sbom
from edgebuild.host import parse_os_release
from edgebuild.run import run
from tests.keys import install

SPEC = """\
Name: edgebuild-tests
Epoch: 3
Version: 1.2
Release: 4
Summary: a package of the tests
License: Apache-2.0
Vendor: The Tests
BuildArch: noarch
%description
Nothing.
%files
"""


def check(text: str) -> None:
    """Fail unless this is CycloneDX 1.6."""
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert problem is None, str(problem)[:2000]


def test_dpkg(tmp_path: Path) -> None:
    packages = sbom.parse_dpkg(run(sbom.DPKG_QUERY).stdout)
    assert sbom.parse_dpkg_status(Path("/var/lib/dpkg/status").read_text()) == packages
    assert {"dpkg", "libc6", "bash"} <= {package.name for package in packages}
    inventory = sbom.parse_inventory(run(["sh", "-c", sbom.INVENTORY.replace("/tmp/", f"{tmp_path}/")]).stdout)
    assert list(inventory.packages) == packages
    parts = (sbom.Part("k3s", "1.33.6"),)
    subject = sbom.Subject("here", "1", "sha256:" + "0" * 64, "root-filesystem", parts)
    text = sbom.bills([subject], packages, parse_os_release(inventory.os_release), epoch=1704067200, version="0.1")[0]
    check(text)
    assert len(json.loads(text)["components"]) == len(packages) + 2


def test_rpm(tmp_path: Path) -> None:
    """A package made here, in a database of its own."""
    install("rpmbuild", "rpm")
    (tmp_path / "tests.spec").write_text(SPEC)
    run(["rpmbuild", "-bb", "--define", f"_topdir {tmp_path}", tmp_path / "tests.spec"])
    made = next(tmp_path.glob("RPMS/noarch/*.rpm"))
    database = ["--dbpath", str(tmp_path / "database")]
    run(["rpm", *database, "--justdb", "--nodeps", "--install", made])
    packages = sbom.parse_rpm(run([*sbom.RPM_QUERY, *database]).stdout)
    source = "edgebuild-tests-1.2-4.src.rpm"
    assert packages == [
        sbom.Package("rpm", "edgebuild-tests", "1.2-4", "noarch", epoch=3, source=source, supplier="The Tests")
    ]
    rpm = f"#!/bin/sh\nexec {shutil.which('rpm')} --define '_dbpath {tmp_path}/database' \"$@\"\n"
    (tmp_path / "rpm").write_text(rpm)
    (tmp_path / "rpm").chmod(0o755)
    script = sbom.INVENTORY.replace("/tmp/", f"{tmp_path}/").replace("/var/lib/dpkg", str(tmp_path))
    printed = run(["sh", "-c", script], env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}).stdout
    assert list(sbom.parse_inventory(printed).packages) == packages
    subject = sbom.Subject("leap", "15.6", "sha256:" + "0" * 64, "image")
    check(sbom.bills([subject], packages, {"ID": "opensuse-leap", "VERSION_ID": "15.6"}, epoch=0, version="0.1")[0])


def test_the_validator_finds_faults() -> None:
    subject = sbom.Subject("x", "1", "sha256:" + "0" * 64, "image")
    text = sbom.bills([subject], [], {}, epoch=0, version="0.1")[0]
    with pytest.raises(AssertionError):
        check(text.replace('"container"', '"vessel"'))
