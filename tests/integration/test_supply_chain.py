"""The commands of docs/supply-chain.md, as they stand there, on files and an image as they are written."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgebuild import provenance
from edgebuild.attestations import attach_all
from edgebuild.oci import Registry, digest_of
from edgebuild.provenance import Dependency, Invocation, Subject
from edgebuild.run import CommandFailed, run
from edgebuild.signing import Signer
from tests.integration.test_attestations import REPOSITORY, attachments, publish
from tests.keys import install, install_cosign, openssl_keys
from tests.registry_server import registry_server

ISO = "palette-edge-installer.iso"


def commands(root: Path, section: str) -> list[str]:
    """The shell blocks of one section of the page."""
    text = (root / "docs/supply-chain.md").read_text(encoding="utf-8")
    body = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    found = re.findall(r"```sh\n(.*?)```", body, re.DOTALL)
    assert found
    return found


@pytest.fixture
def results(tmp_path: Path) -> Iterator[Path]:
    """A folder with results, signed; and the public key that a third party has."""
    install_cosign()
    install("jq")
    pair = openssl_keys(tmp_path, "signing")
    signer = Signer("openssl", pair.private.read_text(), "")
    pair.private.unlink()
    (tmp_path / ISO).write_bytes(b"iso")
    statement = provenance.statement(
        [Subject(ISO, digest_of(b"iso"))],
        environment="demo",
        configuration={},
        targets=["iso"],
        dependencies=[Dependency("Dockerfile", digest_of(b"FROM scratch"))],
        invocation=Invocation("1", 0, 1, {}),
    )
    (tmp_path / "provenance").mkdir()
    (tmp_path / "provenance/iso.json").write_text(provenance.seal(statement, signer.sign))
    sums = run(["sha256sum", ISO, "provenance/iso.json"], cwd=tmp_path).stdout
    (tmp_path / "SHA256SUMS").write_text(sums)
    (tmp_path / "SHA256SUMS.sig").write_text(signer.sign(sums.encode()) + "\n")
    with registry_server(tmp_path / "registry") as address:
        registry = Registry(address)
        reference, digest = publish(registry, "documented")
        attach_all(registry, reference, digest, attachments(reference, digest, signer), signer)
        (tmp_path / "image").write_text(f"{address}/{REPOSITORY}@{digest}")
        (tmp_path / "other").write_text(f"{address}/{REPOSITORY}@{publish(registry, 'not-signed')[1]}")
        yield tmp_path


def shell(script: str, folder: Path) -> str:
    return run(["sh", "-e", "-c", script], cwd=folder).stdout


def test_checking_the_files(root: Path, results: Path) -> None:
    by_openssl, by_cosign, comes_from = commands(root, "Checking the files")
    for script in (by_openssl, by_cosign):
        shell(script, results)
    assert '"Dockerfile"' in shell(comes_from, results)
    (results / ISO).write_bytes(b"is0")
    for script in (by_openssl, comes_from):
        with pytest.raises(CommandFailed):
            shell(script, results)
    shell(by_cosign, results)  # the sums are still those that were signed
    (results / "SHA256SUMS").write_text(run(["sha256sum", ISO, "provenance/iso.json"], cwd=results).stdout)
    for script in (by_openssl, by_cosign):
        with pytest.raises(CommandFailed):
            shell(script, results)


def test_checking_images(root: Path, results: Path) -> None:
    (script,) = commands(root, "Checking images")
    signed, other = (
        re.sub(r"IMAGE=\S+", f"IMAGE={(results / name).read_text()}", script, count=1) for name in ("image", "other")
    )
    assert "cosign container image signature" in shell(signed, results)
    with pytest.raises(CommandFailed, match="no signatures found"):
        shell(other, results)


def test_making_keys(root: Path, tmp_path: Path) -> None:
    by_openssl, by_cosign = commands(root, "A key")
    # What the tools ask for is given to them.
    by_openssl = by_openssl.replace("-aes256", "-aes256 -pass pass:phrase")
    shell(by_openssl.replace("-pubout", "-pubout -passin pass:phrase"), tmp_path)
    shell("export COSIGN_PASSWORD=phrase\n" + by_cosign, tmp_path)
    for name in ("signing.pem", "signing.pub", "cosign.key", "cosign.pub"):
        assert (tmp_path / name).read_text().startswith("-----BEGIN")
