"""What is attached to images in a real registry, checked by us and by the real cosign."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgebuild import attestations, provenance, sbom, signing
from edgebuild.attestations import attach_all, check_attached
from edgebuild.errors import InputError, RegistryError
from edgebuild.oci import MANIFEST, Registry, describe, digest_of
from edgebuild.provenance import Attachments, Invocation, Subject
from edgebuild.referrers import attach, referrers
from edgebuild.run import CommandFailed, run
from edgebuild.signing import Signer, open_signer
from edgebuild.transport import Patience
from tests.keys import Keys, cosign_keys, openssl_keys
from tests.registry_server import Fault, faulty_proxy, registry_server

REPOSITORY = "tests/attested"
RUN = Invocation("f3c2", 1704067200, 1704067262, {"edgebuild": "0.1"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("attested")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with registry_server(folder) as address:
        yield address


@pytest.fixture(scope="module")
def keys(folder: Path) -> dict[str, Keys]:
    return {"cosign": cosign_keys(folder), "openssl": openssl_keys(folder, "ec")}


def signer(keys: Keys, root: Path) -> Signer:
    environ = {"PHRASE": keys.password}
    found = open_signer(f"file:{keys.private}", "env:PHRASE" if keys.password else "", environ=environ, root=root)
    assert found
    return found


def publish(registry: Registry, content: str) -> tuple[str, str]:
    """A tiny image; its reference and digest."""
    layer, config = content.encode(), json.dumps({"architecture": "amd64", "os": "linux", "tag": content}).encode()
    for blob in (layer, config):
        registry.put_blob(REPOSITORY, blob)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": describe(attestations.CONFIG, config),
        "layers": [describe("application/vnd.oci.image.layer.v1.tar", layer)],
    }
    digest = registry.put_manifest(REPOSITORY, content, json.dumps(manifest).encode(), MANIFEST)
    return f"{registry.host}/{REPOSITORY}:{content}", digest


def attachments(reference: str, digest: str, used: Signer | None, *, bill_of: str = "") -> Attachments:
    subject = sbom.Subject(reference, "1", bill_of or digest, "image")
    bill = sbom.bills([subject], [], {"ID": "debian"}, epoch=0, version="0.1")[0]
    statement = provenance.statement(
        [Subject(reference, digest), Subject("palette.iso", "sha256:" + "0" * 64)],
        environment="demo",
        configuration={},
        targets=["provider-image"],
        dependencies=[],
        invocation=RUN,
        byproducts=[Subject("sbom/image.cdx.json", digest_of(bill.encode()))],
    )
    if not used:
        return Attachments(bill, provenance.seal(statement))
    return Attachments(bill, provenance.seal(statement, used.sign, key_id=signing.key_id(used.public_key())))


@pytest.mark.parametrize("kind", ["cosign", "openssl"])
def test_cosign_verifies_what_is_attached(address: str, keys: dict[str, Keys], kind: str, tmp_path: Path) -> None:
    registry, used, public = Registry(address), signer(keys[kind], tmp_path), keys[kind].public
    reference, digest = publish(registry, f"by-{kind}")
    pinned = f"{address}/{REPOSITORY}@{digest}"
    assert len(check_attached(registry, reference, digest, public)) == 2
    attach_all(registry, reference, digest, attachments(reference, digest, used), used)
    assert check_attached(registry, reference, digest, public) == []
    assert check_attached(registry, reference, digest) == []
    types = [each["artifactType"] for each in referrers(registry, REPOSITORY, digest)]
    assert types == [attestations.SBOM, attestations.ENVELOPE, attestations.SIGNATURE]
    # What a third party types; docs/supply-chain.md has the same commands.
    checks = [
        ["verify", "--key", str(public), "--insecure-ignore-tlog=true", pinned],
        ["verify", "--key", str(public), "--insecure-ignore-tlog=true", "--experimental-oci11", pinned],
        [
            "verify-attestation",
            "--key",
            str(public),
            "--insecure-ignore-tlog=true",
            "--type",
            "slsaprovenance1",
            pinned,
        ],
    ]
    for check in checks:
        run(["cosign", *check])
    other = keys["openssl" if kind == "cosign" else "cosign"].public
    for check in checks:
        with pytest.raises(CommandFailed):
            run(["cosign", *(str(other) if part == str(public) else part for part in check)])
    assert len(check_attached(registry, reference, digest, other)) == 2


def test_cosign_verifies_the_envelope_of_a_file(keys: dict[str, Keys], tmp_path: Path) -> None:
    """`inv` writes provenance.json: the same envelope, about files."""
    for pair in keys.values():
        used, file = signer(pair, tmp_path), tmp_path / "palette.iso"
        file.write_bytes(b"iso")
        statement = provenance.statement(
            [Subject("palette.iso", digest_of(b"iso"))],
            environment="demo",
            configuration={},
            targets=["iso"],
            dependencies=[],
            invocation=RUN,
        )
        (tmp_path / "provenance.json").write_text(provenance.seal(statement, used.sign))
        argv = ["cosign", "verify-blob-attestation", "--key", str(pair.public), "--insecure-ignore-tlog=true"]
        argv += ["--type", "slsaprovenance1", "--signature", "provenance.json", "palette.iso"]
        run(argv, cwd=tmp_path)
        file.write_bytes(b"other")
        with pytest.raises(CommandFailed):
            run(argv, cwd=tmp_path)


def test_cosign_s_own_signature_stays_and_counts(address: str, keys: dict[str, Keys], tmp_path: Path) -> None:
    registry, pair = Registry(address), keys["cosign"]
    reference, digest = publish(registry, "theirs")
    pinned = f"{address}/{REPOSITORY}@{digest}"
    sign = ["cosign", "sign", "--yes", "--tlog-upload=false", "--key", str(pair.private), pinned]
    run(sign, env={"COSIGN_PASSWORD": pair.password})
    used = signer(keys["openssl"], tmp_path)
    attach_all(registry, reference, digest, attachments(reference, digest, used), used)
    for public in (pair.public, keys["openssl"].public):
        run(["cosign", "verify", "--key", str(public), "--insecure-ignore-tlog=true", pinned])
        assert not any("no signature" in each for each in check_attached(registry, reference, digest, public))


def test_without_a_key_nothing_is_signed(address: str, keys: dict[str, Keys]) -> None:
    registry = Registry(address)
    reference, digest = publish(registry, "unsigned")
    assert check_attached(registry, reference, digest) == [
        f"{reference}@{digest}: the registry has no provenance",
    ]
    for _ in range(2):
        attach_all(registry, reference, digest, attachments(reference, digest, None))
    assert len(referrers(registry, REPOSITORY, digest)) == 2
    assert check_attached(registry, reference, digest) == []
    assert not registry.exists(REPOSITORY, digest.replace(":", "-") + ".sig")
    public = keys["openssl"].public
    assert check_attached(registry, reference, digest, public) == [
        f"{reference}@{digest}: the registry has no provenance by the owner of ec.pub",
        f"{reference}@{digest}: the registry has no signature by the owner of ec.pub",
    ]


def test_a_bill_by_the_image_s_id_fits_and_another_does_not(
    address: str, keys: dict[str, Keys], tmp_path: Path
) -> None:
    registry, used, public = Registry(address), signer(keys["openssl"], tmp_path), keys["openssl"].public
    reference, digest = publish(registry, "by-id")
    image_id = json.loads(registry.manifest(REPOSITORY, digest)[2])["config"]["digest"]
    attach_all(registry, reference, digest, attachments(reference, digest, used, bill_of=image_id), used)
    assert check_attached(registry, reference, digest, public) == []
    reference, digest = publish(registry, "by-another")
    attach_all(registry, reference, digest, attachments(reference, digest, used, bill_of="sha256:" + "1" * 64), used)
    assert check_attached(registry, reference, digest, public) == [
        f"{reference}@{digest}: the registry has no bill of materials that its provenance names"
    ]


def test_what_is_about_another_image_does_not_count(address: str, keys: dict[str, Keys], tmp_path: Path) -> None:
    """Everything of one image, well signed, is attached to another."""
    registry, used, public = Registry(address), signer(keys["openssl"], tmp_path), keys["openssl"].public
    reference, digest = publish(registry, "good")
    attach_all(registry, reference, digest, attachments(reference, digest, used), used)
    evil_reference, evil = publish(registry, "evil")
    for each in referrers(registry, REPOSITORY, digest):
        layer = json.loads(registry.manifest(REPOSITORY, each["digest"])[2])["layers"][0]
        data = registry.read_blob(REPOSITORY, layer)
        attach(registry, REPOSITORY, evil, each["artifactType"], layer["mediaType"], data)
    for kind in ("sig", "att"):
        _, media_type, data = registry.manifest(REPOSITORY, f"{digest.replace(':', '-')}.{kind}")
        registry.put_manifest(REPOSITORY, f"{evil.replace(':', '-')}.{kind}", data, media_type)
    assert len(check_attached(registry, evil_reference, evil, public)) == 2
    assert len(check_attached(registry, evil_reference, evil)) == 1
    assert check_attached(registry, reference, digest, public) == []


@pytest.mark.parametrize(
    "odd",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"bomFormat": 1}',
        b'{"payload": 1}',
        b'{"critical": []}',
        b'{"critical": {"image": 1}}',
    ],
)
def test_rubbish_beside_it_does_not_matter(address: str, keys: dict[str, Keys], odd: bytes, tmp_path: Path) -> None:
    registry, used, public = Registry(address), signer(keys["openssl"], tmp_path), keys["openssl"].public
    reference, digest = publish(registry, f"rubbish-{digest_of(odd)[7:19]}")
    for kind in (attestations.SBOM, attestations.ENVELOPE, attestations.SIGNATURE):
        attach(registry, REPOSITORY, digest, kind, kind, odd)
    registry.put_blob(REPOSITORY, odd)
    rubbish = [{**describe(attestations.SIGNED, odd), "annotations": each} for each in ({"a": "b"}, None)]
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": describe(attestations.CONFIG, odd)}
    data = json.dumps({**manifest, "layers": rubbish}).encode()
    registry.put_manifest(REPOSITORY, digest.replace(":", "-") + ".sig", data, MANIFEST)
    assert len(check_attached(registry, reference, digest, public)) == 2
    attach_all(registry, reference, digest, attachments(reference, digest, used), used)
    assert check_attached(registry, reference, digest, public) == []


def test_a_changed_byte_is_noticed(address: str, keys: dict[str, Keys], folder: Path, tmp_path: Path) -> None:
    registry, used, public = Registry(address), signer(keys["openssl"], tmp_path), keys["openssl"].public
    reference, digest = publish(registry, "changed")
    attached = attachments(reference, digest, used)
    attach_all(registry, reference, digest, attached, used)
    said = {
        attached.sbom.encode(): "no bill of materials",
        attached.provenance.encode(): "no provenance",
        attestations.signed_payload(reference, digest): "no signature",
    }
    for data, problem in said.items():
        name = digest_of(data).removeprefix("sha256:")
        file = folder / f"data/docker/registry/v2/blobs/sha256/{name[:2]}/{name}/data"
        assert file.read_bytes() == data
        file.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
        problems = check_attached(registry, reference, digest, public)
        assert len(problems) == 1
        assert problem in problems[0]
        file.write_bytes(data)
    assert check_attached(registry, reference, digest, public) == []


def test_a_registry_that_refuses_or_a_key_that_is_none(address: str, keys: dict[str, Keys], tmp_path: Path) -> None:
    registry = Registry(address)
    reference, digest = publish(registry, "refused")
    attached = attachments(reference, digest, None)
    attach_all(registry, reference, digest, attached)
    (tmp_path / "no-key").write_text("no key")
    with pytest.raises(InputError, match="no public key"):
        check_attached(registry, reference, digest, tmp_path / "no-key")
    with faulty_proxy(address) as proxy:
        through = Registry(proxy.address, patience=Patience(attempts=2, wait=lambda _: None))
        for method, path, status in (
            ("PUT", "/manifests/", 403),
            ("POST", "/blobs/uploads/", 500),
            ("GET", "/v2/", 401),
        ):
            proxy.faults.append(Fault(method, path, status, times=9))
            with pytest.raises(RegistryError, match=str(status)):
                attach_all(through, reference, digest, Attachments(attached.sbom + " ", attached.provenance + " "))
            if status == 401:
                with pytest.raises(RegistryError, match="401"):
                    check_attached(through, reference, digest)
            proxy.faults.clear()
