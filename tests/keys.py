"""Keys for signing, made by the real tools; cosign is installed when it is missing."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from edgebuild.engine import NEWER_SUITE, install_commands
from edgebuild.host import read_os_release, read_sources
from edgebuild.run import run

PASSWORD = "a pass phrase with 'quotes\" and $signs"
EC = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
RSA = ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")


@dataclass(frozen=True)
class Keys:
    """A pair of files. `password` is the private one's."""

    private: Path
    public: Path
    password: str = ""


def install(program: str, package: str = "") -> None:
    """Install a program from the distribution's packages when it is missing."""
    if not shutil.which(program):
        argv = ["apt-get", "install", "--yes", "--no-install-recommends", package or program]
        run(["apt-get", "update"])
        run(argv, env={"DEBIAN_FRONTEND": "noninteractive"})


def install_cosign() -> None:
    """Install cosign; Debian 12 takes the next suite's."""
    if shutil.which("cosign") or read_os_release().get("VERSION_ID") != "12":
        install("cosign")
        return
    if not Path(f"/etc/apt/sources.list.d/edgebuild-{NEWER_SUITE}.sources").exists():
        for command in install_commands(read_os_release(), read_sources())[:2]:
            run(command)
    install("cosign", f"cosign/{NEWER_SUITE}")


def cosign_keys(folder: Path, password: str = PASSWORD) -> Keys:
    install_cosign()
    run(["cosign", "generate-key-pair"], cwd=folder, env={"COSIGN_PASSWORD": password})
    return Keys(folder / "cosign.key", folder / "cosign.pub", password)


def openssl_keys(folder: Path, name: str, options: tuple[str, ...] = EC, password: str = "") -> Keys:
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    encrypted = ["-aes256", "-pass", "env:KEY_PASSWORD"] if password else []
    env = {"KEY_PASSWORD": password}
    run(["openssl", "genpkey", *options, *encrypted, "-out", private], env=env)
    run(["openssl", "pkey", "-in", private, "-passin", "env:KEY_PASSWORD", "-pubout", "-out", public], env=env)
    return Keys(private, public, password)
