"""Signatures by the real cosign and openssl; each verifies what the other signed."""

import base64
import os
import shutil
from pathlib import Path

import pytest

from edgebuild import signing
from edgebuild.errors import InputError, ToolError, VerificationError
from edgebuild.run import CommandFailed, run
from edgebuild.signing import Signer, open_signer
from tests.keys import PASSWORD, RSA, Keys, cosign_keys, openssl_keys

DATA = bytes(range(256)) * 9
CURVE = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Keys]:
    folder = tmp_path_factory.mktemp("keys")
    return {
        "cosign": cosign_keys(folder),
        "ec": openssl_keys(folder, "ec"),
        "ec384": openssl_keys(folder, "ec384", CURVE),
        "rsa": openssl_keys(folder, "rsa", RSA),
        "encrypted": openssl_keys(folder, "encrypted", password=PASSWORD),
    }


def signer(keys: Keys, root: Path) -> Signer:
    found = open_signer(
        f"file:{keys.private}", "env:PHRASE" if keys.password else "", environ={"PHRASE": keys.password}, root=root
    )
    assert found
    return found


@pytest.mark.parametrize("kind", ["cosign", "ec", "ec384", "rsa", "encrypted"])
def test_both_tools_verify(keys: dict[str, Keys], kind: str, tmp_path: Path) -> None:
    pair = keys[kind]
    used = signer(pair, tmp_path)
    assert used.tool == ("cosign" if kind == "cosign" else "openssl")
    assert used.public_key().strip() == pair.public.read_text().strip()
    signature = used.sign(DATA)
    signing.verify(DATA, signature + "\n", pair.public)
    # What a third party types; docs/supply-chain.md has the same commands.
    (tmp_path / "data").write_bytes(DATA)
    (tmp_path / "data.sig").write_text(signature + "\n")
    (tmp_path / "raw").write_bytes(base64.b64decode(signature))
    public = str(pair.public)
    cosign = ["cosign", "verify-blob", "--key", public, "--insecure-ignore-tlog=true", "--signature", "data.sig"]
    openssl = ["openssl", "dgst", "-sha256", "-verify", public, "-signature", "raw"]
    for argv in (cosign, openssl):
        run([*argv, "data"], cwd=tmp_path)
    (tmp_path / "data").write_bytes(DATA[:-1])
    for argv in (cosign, openssl):
        with pytest.raises(CommandFailed):
            run([*argv, "data"], cwd=tmp_path)


def test_a_key_in_the_environment(keys: dict[str, Keys], tmp_path: Path) -> None:
    for kind in ("cosign", "ec"):
        pair = keys[kind]
        environ = {"KEY": pair.private.read_text(), "PHRASE": pair.password}
        found = open_signer("env:KEY", "env:PHRASE" if pair.password else "", environ=environ, root=tmp_path)
        assert found
        signing.verify(DATA, found.sign(DATA), pair.public)
    assert open_signer("", "", environ={}, root=tmp_path) is None


@pytest.mark.parametrize("kind", ["cosign", "encrypted"])
def test_the_secrets_are_on_no_argument_list_and_in_no_file(
    keys: dict[str, Keys], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shim stands in front of the tool, and notes its arguments and every file below the temporary folder."""
    pair, tool = keys[kind], "cosign" if kind == "cosign" else "openssl"
    temporary = tmp_path / "temporary"
    for folder in (temporary, tmp_path / "bin"):
        folder.mkdir()
    shim = tmp_path / "bin" / tool
    note = f'printf "%s\\n" "$@" >>"{tmp_path}/seen"; find "{temporary}" -type f -exec cat {{}} + >>"{tmp_path}/seen"'
    shim.write_text(f'#!/bin/sh\n{note}\nexec {shutil.which(tool)} "$@"\n')
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    used = signer(pair, tmp_path)
    signing.verify(DATA, used.sign(DATA), pair.public)
    seen = (tmp_path / "seen").read_text(errors="replace")
    assert "sign" in seen
    body = pair.private.read_text().splitlines()[1]
    assert body not in seen
    assert pair.password not in seen
    assert body not in repr(used)
    assert pair.password not in repr(used)
    assert list(temporary.iterdir()) == []


def test_another_key_other_data_and_no_signature(keys: dict[str, Keys], tmp_path: Path) -> None:
    signature = signer(keys["ec"], tmp_path).sign(DATA)
    for data, given, public in (
        (DATA + b"x", signature, keys["ec"].public),
        (DATA, signature, keys["rsa"].public),
        (DATA, signature, keys["cosign"].public),
        (DATA, "", keys["ec"].public),
        (DATA, "no base64!", keys["ec"].public),
        (DATA, base64.b64encode(b"garbage").decode(), keys["ec"].public),
    ):
        with pytest.raises(VerificationError) as caught:
            signing.verify(data, given, public)
        assert caught.value.exit_code == 5


def test_a_public_key_that_is_none(keys: dict[str, Keys], tmp_path: Path) -> None:
    ed25519 = openssl_keys(tmp_path, "ed25519", ("-algorithm", "ED25519"))
    (tmp_path / "text").write_text("text")
    for public in (keys["ec"].private, tmp_path / "text", ed25519.public, tmp_path / "none"):
        with pytest.raises(InputError):
            signing.verify(DATA, "", public)


def test_a_wrong_password(keys: dict[str, Keys], tmp_path: Path) -> None:
    for kind in ("cosign", "encrypted"):
        for phrase in ("wrong-phrase", ""):
            with pytest.raises(InputError, match="cannot sign with it") as caught:
                open_signer(
                    f"file:{keys[kind].private}",
                    "env:PHRASE" if phrase else "",
                    environ={"PHRASE": phrase},
                    root=tmp_path,
                )
            assert "signing.password" in caught.value.hint
            assert "wrong-phrase" not in str(caught.value)


def test_keys_of_other_kinds(keys: dict[str, Keys], tmp_path: Path) -> None:
    texts = {
        "untrusted comment: minisign encrypted secret key\nRWRT": "minisign",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3": "OpenSSH",
        keys["ec"].public.read_text(): "is a public key",
        "-----BEGIN CERTIFICATE-----\nMII": "is a certificate",
        "hello": "is no key",
    }
    for text, said in texts.items():
        with pytest.raises(InputError, match=said):
            open_signer("env:KEY", "", environ={"KEY": text}, root=tmp_path)
    ed25519 = openssl_keys(tmp_path, "ed25519", ("-algorithm", "ED25519"))
    with pytest.raises(InputError, match="Key type not supported") as caught:
        signer(ed25519, tmp_path)
    assert "P-256" in caught.value.hint


def test_a_missing_tool(keys: dict[str, Keys], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for kind, tool in (("cosign", "cosign"), ("ec", "openssl")):
        with pytest.raises(ToolError, match=f"`{tool}` is not installed") as caught:
            signer(keys[kind], tmp_path)
        assert "install" in caught.value.hint


def test_the_name_of_a_key(keys: dict[str, Keys], tmp_path: Path) -> None:
    der = tmp_path / "key.der"
    run(["openssl", "pkey", "-pubin", "-in", keys["ec"].public, "-outform", "DER", "-out", der])
    hashed = run(["sha256sum", der]).stdout.split()[0]
    assert signing.key_id(keys["ec"].public.read_text()) == hashed
