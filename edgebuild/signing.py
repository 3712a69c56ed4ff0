"""Signatures with a key that the user names, by cosign or openssl: each verifies what the other signed.

Both sign the SHA-256 of the data; a signature is its ASN.1 form in base64. The private key reaches the tools by their
standard input or environment: it is on no argument list, and no file is made of it.
"""

import base64
import binascii
import functools
import hashlib
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgebuild import secrets
from edgebuild.errors import InputError, ToolError, VerificationError
from edgebuild.run import CommandFailed, run

COSIGN_HEADER = re.compile(r"-----BEGIN ENCRYPTED (SIGSTORE|COSIGN) PRIVATE KEY-----")
PEM_HEADER = re.compile(r"-----BEGIN ((EC|RSA|ENCRYPTED) )?PRIVATE KEY-----")
# What else people have, and what to do about it.
OTHERS = {
    "untrusted comment:": "a minisign key; sign SHA256SUMS with it yourself: docs/supply-chain.md says how",
    "OPENSSH PRIVATE KEY": "OpenSSH's own format; `ssh-keygen -p -m PKCS8 -f KEY` turns an EC or RSA key into PEM",
    "PUBLIC KEY": "a public key; the private one signs",
    "CERTIFICATE": "a certificate; the private key that belongs to it signs",
}
NEW_KEY = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out signing.pem"
INSTALL = {
    "openssl": "apt-get install openssl",
    "cosign": "install cosign 2: https://docs.sigstore.dev/cosign/system_config/installation/ (Debian 13 has it)",
}


@dataclass(frozen=True)
class Signer:
    """A private key, and the tool that signs with it: cosign or openssl."""

    tool: str
    key: str = field(repr=False)
    password: str = field(repr=False)

    def sign(self, data: bytes) -> str:
        """The signature of `data`, in base64. Raises InputError when the key or its password does not fit."""
        with tempfile.TemporaryDirectory(prefix="edgebuild-") as folder:
            file, signature = Path(folder) / "data", Path(folder) / "signature"
            file.write_bytes(data)
            if self.tool == "cosign":
                argv = ["cosign", "sign-blob", "--yes", "--key", "env://COSIGN_PRIVATE_KEY", "--tlog-upload=false"]
                self._call([*argv, "--output-signature", str(signature), str(file)])
                return signature.read_text().strip()
            argv = ["openssl", "dgst", "-sha256", "-sign", "/dev/stdin", "-passin", "env:EDGEBUILD_KEY_PASSWORD"]
            self._call([*argv, "-out", str(signature), str(file)])
            return base64.b64encode(signature.read_bytes()).decode()

    @functools.cached_property
    def key_id(self) -> str:
        """The name of its public key in a DSSE envelope."""
        return key_id(self.public_key())

    def public_key(self) -> str:
        """The public key that belongs to it, as PEM."""
        if self.tool == "cosign":
            return self._call(["cosign", "public-key", "--key", "env://COSIGN_PRIVATE_KEY"])
        return self._call(
            ["openssl", "pkey", "-in", "/dev/stdin", "-passin", "env:EDGEBUILD_KEY_PASSWORD", "-pubout"]
        )

    def _call(self, argv: list[str]) -> str:
        if self.tool == "cosign":
            env = {"COSIGN_PRIVATE_KEY": self.key, "COSIGN_PASSWORD": self.password}
        else:
            env = {"EDGEBUILD_KEY_PASSWORD": self.password}
        try:
            return run(argv, env=env, stdin=self.key if self.tool == "openssl" else None).stdout
        except CommandFailed as error:
            lines = [line for line in error.result.stderr.splitlines() if not line.startswith("Using payload")]
            raise InputError(
                f"signing.key: {self.tool} cannot sign with it: {(lines or ['no reason given'])[0]}",
                hint=f"check signing.password; EC P-256 and RSA keys work, such as by `{NEW_KEY}`",
            ) from error


def open_signer(key: str, password: str, *, environ: Mapping[str, str], root: Path) -> Signer | None:
    """The signer of the configuration's `signing.key` and `signing.password` references; None without a key.

    Signs once to see that key and password fit. Raises InputError, and ToolError when the key's tool is missing.
    """
    if not key:
        return None
    text = secrets.resolve(key, environ=environ, root=root, key="signing.key").strip() + "\n"
    phrase = secrets.resolve(password, environ=environ, root=root, key="signing.password") if password else ""
    if not (COSIGN_HEADER.search(text) or PEM_HEADER.search(text)):
        kind = next((advice for mark, advice in OTHERS.items() if mark in text), "no key")
        raise InputError(f"signing.key: {key} is {kind}", hint=f"make a key: {NEW_KEY}")
    tool = "cosign" if COSIGN_HEADER.search(text) else "openssl"
    _need(tool)
    signer = Signer(tool, text, phrase)
    signer.sign(b"")
    return signer


def verify(data: bytes, signature: str, public_key: Path) -> None:
    """Return when `signature` (base64) is that of `data` by the owner of this public key, a PEM file.

    Raises VerificationError when it is not, InputError when the file holds no public key of a usable kind.
    """
    check_public_key(public_key)
    try:
        raw = base64.b64decode(signature.strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise VerificationError("the signature is no base64") from error
    with tempfile.TemporaryDirectory(prefix="edgebuild-") as folder:
        (Path(folder) / "data").write_bytes(data)
        (Path(folder) / "signature").write_bytes(raw)
        argv = ["openssl", "dgst", "-sha256", "-verify", str(public_key), "-signature", f"{folder}/signature"]
        if run([*argv, f"{folder}/data"], check=False).stdout.strip() != "Verified OK":
            raise VerificationError(
                f"the signature is not that of the owner of {public_key}",
                hint="the content was changed after it was signed, or this is the key of somebody else",
            )


def check_public_key(public_key: Path) -> None:
    """Raises InputError when the file holds no public key of a usable kind, ToolError without openssl."""
    _need("openssl")
    if not public_key.is_file():
        raise InputError(
            f"{public_key}: there is no such file", hint="name the public key that belongs to signing.key"
        )
    loaded = run(["openssl", "pkey", "-pubin", "-in", public_key, "-noout", "-text"], check=False)
    if loaded.returncode or not re.search(r"NIST CURVE|ASN1 OID|Modulus", loaded.stdout):
        raise InputError(
            f"{public_key}: no public key of the kinds EC and RSA in PEM",
            hint="cosign public-key --key cosign.key, or: openssl pkey -in signing.pem -pubout",
        )


def key_id(public_key: str) -> str:
    """The SHA-256 of a public key in PEM, as hexadecimal: its name in a DSSE envelope."""
    lines = [line for line in public_key.splitlines() if line and not line.startswith("-----")]
    return hashlib.sha256(base64.b64decode("".join(lines))).hexdigest()


def _need(tool: str) -> None:
    if not shutil.which(tool):
        raise ToolError(
            f"`{tool}` is not installed or not in PATH; it makes and checks signatures", hint=INSTALL[tool]
        )
