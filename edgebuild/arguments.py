"""CanvOS's arguments and the keys that replace them: one table for the documentation and for importing. Pure."""

import difflib
import shlex
from dataclasses import dataclass
from typing import Any

import yaml

from edgebuild.errors import InputError


@dataclass(frozen=True)
class Argument:
    """One CanvOS argument. `key` is empty when nothing replaces it; `note` says what to know."""

    name: str
    key: str
    note: str = ""


ARGUMENTS = (
    Argument("CUSTOM_TAG", "image.tag"),
    Argument("IMAGE_REGISTRY", "image.registry"),
    Argument("OS_DISTRIBUTION", "os.distribution", "ubuntu, opensuse-leap; debian, sles and rhel with os.base_image"),
    Argument("IMAGE_REPO", "image.repository"),
    Argument("OS_VERSION", "os.version", "22 and 22.04 mean the same"),
    Argument("K8S_DISTRIBUTION", "kubernetes.distribution", "k3s, rke2, kubeadm"),
    Argument("K8S_VERSION", "kubernetes.versions", "one, a list, or all"),
    Argument("ISO_NAME", "iso.name"),
    Argument("PE_VERSION", "release", "the release also sets pe_version, the version in the image tags"),
    Argument("ARCH", "os.arch"),
    Argument("platform", "os.arch", "linux/amd64 becomes amd64"),
    Argument("BASE_IMAGE", "os.base_image"),
    Argument("UPDATE_KERNEL", "os.update_kernel"),
    Argument("DISABLE_SELINUX", "os.disable_selinux"),
    Argument("BUNDLE_K8S_AND_AGENT_PROVIDER", "kubernetes.bundle"),
    Argument("CLUSTERCONFIG", "iso.cluster_definition"),
    Argument("FORCE_INTERACTIVE_INSTALL", "iso.interactive"),
    Argument("HTTP_PROXY", "proxy.http"),
    Argument("HTTPS_PROXY", "proxy.https"),
    Argument("NO_PROXY", "proxy.no_proxy", "a comma list becomes a list"),
    Argument("PROXY_CERT_PATH", "certs", "a folder; every certificate in it is taken"),
    Argument("SPECTRO_PUB_REPO", "registries.public"),
    Argument("SPECTRO_LUET_REPO", "registries.luet"),
    Argument("KAIROS_BASE_IMAGE_URL", "registries.kairos"),
    Argument("SPECTRO_THIRD_PARTY_IMAGE", "images.third_party"),
    Argument("K3S_FLAVOR_TAG", "components.k3s_flavor_tag"),
    Argument("RKE2_FLAVOR_TAG", "components.rke2_flavor_tag"),
    Argument("K3S_PROVIDER_VERSION", "components.provider_versions.k3s"),
    Argument("RKE2_PROVIDER_VERSION", "components.provider_versions.rke2"),
    Argument("KUBEADM_PROVIDER_VERSION", "components.provider_versions.kubeadm"),
    Argument("KAIROS_VERSION", "components.kairos_version"),
    Argument("KAIROS_INIT_VERSION", "components.kairos_init_version"),
)
SWITCHES = {"os.update_kernel", "os.disable_selinux", "kubernetes.bundle", "iso.interactive"}


def parse_arg(text: str, source: str) -> dict[str, str]:
    """The NAME=value lines of a .arg file, as a shell reads them."""
    values = {}
    problems = []
    for number, line in enumerate(text.splitlines(), 1):
        assignment = line.strip().removeprefix("export ")
        if not assignment or assignment.startswith("#"):
            continue
        name, equals, value = assignment.partition("=")
        try:
            words = shlex.split(value, comments=True)
        except ValueError as error:
            problems.append(f"{source}:{number}: {error}")
            continue
        if not equals or not name.isidentifier() or len(words) > 1:
            problems.append(f"{source}:{number}: expected NAME=value")
            continue
        values[name] = words[0] if words else ""
    if problems:
        raise InputError.from_problems(problems)
    return values


def import_arg(text: str, *, source: str) -> str:
    """A CanvOS .arg file as the text of an environment file. Raises InputError for what has no key here."""
    known = {argument.name: argument for argument in ARGUMENTS}
    result: dict[str, Any] = {"schema": 1}
    problems = []
    for name, value in parse_arg(text, source).items():
        argument = known.get(name)
        if argument is None:
            close = difflib.get_close_matches(name, known, n=1)
            problems.append(f"{source}: {name} has no key here" + (f"; did you mean {close[0]}?" if close else ""))
        elif value != "":
            section = result
            *parents, last = argument.key.split(".")
            for parent in parents:
                section = section.setdefault(parent, {})
            section[last] = _converted(argument.key, value)
        elif name == "CUSTOM_TAG":
            result.setdefault("image", {})["tag"] = ""
    if problems:
        raise InputError.from_problems(
            problems, hint="remove these lines from a copy of the file; docs/arguments.md lists all"
        )
    return f"# Imported from CanvOS's {source}.\n" + yaml.safe_dump(result, sort_keys=False)


def _converted(key: str, value: str) -> Any:
    if key in SWITCHES:
        return value.lower() == "true"
    if key == "proxy.no_proxy":
        return [part.strip() for part in value.split(",") if part.strip()]
    if key == "os.arch":
        return value.removeprefix("linux/")
    if key == "certs":
        return value.rsplit("/", 1)[0] if "/" in value else "certs"
    return value


def documentation() -> str:
    """docs/arguments.md."""
    lines = [
        "# CanvOS arguments and their keys",
        "",
        "Generated by `./inv config.generate`. `./inv config.import-arg --file .arg` imports a `.arg` file.",
        "",
        "| CanvOS argument | key | note |",
        "|---|---|---|",
        *(f"| `{each.name}` | `{each.key}` | {each.note} |" for each in ARGUMENTS),
    ]
    return "\n".join(lines) + "\n"
