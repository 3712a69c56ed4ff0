"""What one value of the configuration may be: patterns, and the words that say what was expected. Pure."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

# What a release may name, and by which package manager's steps its base image is made.
OS_FAMILIES = {"ubuntu": "apt", "debian": "apt", "opensuse-leap": "zypper", "sles": "zypper", "rhel": "dnf"}
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
FIXED_EPOCH = 1704067200  # 2024-01-01: where no commit tells the date, and where no commit may change it
EPOCHS = range(315532800, 4102444801)  # 1980, where FAT begins, to 2100
HOST = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*(:[0-9]{1,5})?")
PATH_PART = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*")  # OCI distribution specification
TAG = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
REFERENCE = re.compile(r"[a-z0-9][a-zA-Z0-9._:/-]*(@sha256:[0-9a-f]{64})?")


class Section(BaseModel):
    """A mapping of the configuration: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


def check_registry(text: str) -> str:
    """host[:port][/namespace]; raises ValueError with what was expected."""
    if "://" in text:
        raise ValueError("a registry is written without scheme, such as docker.io/your-docker-id")
    host, *parts = text.split("/")
    if "_" in host:
        raise ValueError("a registry's host name may not contain underscores")
    if not HOST.fullmatch(host) or not all(PATH_PART.fullmatch(part) for part in parts):
        raise ValueError("expected host[:port][/namespace] in lower case, such as ttl.sh or docker.io/your-id")
    return text


def _check_repository(text: str) -> str:
    if not all(PATH_PART.fullmatch(part) for part in text.split("/")):
        raise ValueError("expected a repository name of lower-case letters, digits and . _ - /")
    return text


def _check_tag(text: str) -> str:
    if text and (not TAG.fullmatch(text) or len(text) > 64):
        raise ValueError("expected lower-case letters, digits and . _ - (at most 64), without spaces")
    return text


def _check_reference(text: str) -> str:
    if text and not REFERENCE.fullmatch(text):
        raise ValueError("expected an image reference such as quay.io/kairos/ubuntu:22.04")
    return text


def _check_secret(text: str) -> str:
    if text and (CONTROL.search(text) or not re.fullmatch(r"env:[A-Za-z_][A-Za-z0-9_]*|file:.+", text)):
        raise ValueError("expected a reference, env:NAME or file:PATH; a secret's value never stands in a file")
    return text


def _check_proxy(text: str) -> str:
    if text and (CONTROL.search(text) or not re.fullmatch(r"https?://[^\s'\"]+", text)):
        raise ValueError("expected a proxy address such as http://proxy.example.com:3128")
    return text


def _check_package_mirror(text: str) -> str:
    if not re.fullmatch(r"https?://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._~%+-]+)*/?", text):
        raise ValueError("expected the address of a package archive such as http://packages.example.com/debian")
    return text.rstrip("/")


def _check_relative(text: str) -> str:
    if text.startswith("/") or ".." in text.split("/") or CONTROL.search(text):
        raise ValueError("expected a path inside the repository")
    return text


def _check_line(text: str) -> str:
    if CONTROL.search(text):
        raise ValueError("expected text in one line, without control characters")
    return text


def pattern(expression: str, expected: str) -> AfterValidator:
    """The whole text must match; else an error says what was expected."""

    def check(text: str) -> str:
        if not re.fullmatch(expression, text):
            raise ValueError(f"expected {expected}")
        return text

    return AfterValidator(check)


def _text_if_number(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _versions(value: Any) -> Any:
    if isinstance(value, str) and value != "all":
        return (value,)
    return as_tuple(value)


def _check_epoch(value: Any) -> Any:
    """`commit` as 0, which is no date."""
    if value == "commit":
        return 0
    if type(value) is int and value in EPOCHS:
        return value
    raise ValueError(f"expected commit, or seconds since 1970 from {EPOCHS[0]} to {EPOCHS[-1]}")


Version = Annotated[str, BeforeValidator(_text_if_number), pattern(r"[0-9]+(\.[0-9]+)*", "a version such as 22.04")]
KubernetesVersion = Annotated[str, pattern(r"[0-9]+\.[0-9]+\.[0-9]+", "a version such as 1.33.6")]
Package = Annotated[str, pattern(r"[A-Za-z0-9][A-Za-z0-9+._:~=-]*", "a package name")]
Name = Annotated[str, pattern(r"[a-z0-9][a-z0-9_-]{0,62}", "lower-case letters, digits, - and _, without spaces")]
KernelArgument = Annotated[str, pattern(r"[A-Za-z0-9_.,:;=/@+%-]+", "one kernel argument without spaces")]
Registry = Annotated[str, AfterValidator(check_registry)]
Repository = Annotated[str, AfterValidator(_check_repository)]
Tag = Annotated[str, AfterValidator(_check_tag)]
Reference = Annotated[str, AfterValidator(_check_reference)]
ProxyAddress = Annotated[str, AfterValidator(_check_proxy)]
PackageMirror = Annotated[str, AfterValidator(_check_package_mirror)]
Secret = Annotated[str, AfterValidator(_check_secret)]
RelativePath = Annotated[str, AfterValidator(_check_relative)]
Architecture = Literal["amd64", "arm64"]
Line = Annotated[str, AfterValidator(_check_line)]
Title = Annotated[Line, pattern(r"[^-].*", "a title that does not begin with -")]
Release = Annotated[str, pattern(r"[A-Za-z0-9][A-Za-z0-9._-]*", "the name of a file in config/releases")]
DistributionName = Annotated[str, pattern(r"[a-z0-9]+(-[a-z0-9]+)*", "lower-case letters, digits and -")]
Address = Annotated[str, pattern(r"[A-Za-z0-9.:*/_\[\]-]+", "a host, domain or network such as 10.0.0.0/8")]
Variable = Annotated[str, pattern(r"[A-Za-z_][A-Za-z0-9_]*", "the name of a variable")]
AgentFile = Annotated[
    str,
    pattern(
        r"(?!.*/\.\.(/|:|$))(/[A-Za-z0-9._@+-]+)+(:(/[A-Za-z0-9._@+-]+)+)?", "a path such as /etc/a, or source:target"
    ),
]
LuetPackage = Annotated[str, pattern(r"[A-Za-z0-9][A-Za-z0-9/@{}.+_-]*", "a package such as k8s/k3s@{version}")]
Architectures = Annotated[tuple[Architecture, ...], BeforeValidator(as_tuple)]
Packages = Annotated[tuple[Package, ...], BeforeValidator(as_tuple)]
Addresses = Annotated[tuple[Address, ...], BeforeValidator(as_tuple)]
AgentFiles = Annotated[tuple[AgentFile, ...], BeforeValidator(as_tuple)]
LuetPackages = Annotated[tuple[LuetPackage, ...], BeforeValidator(as_tuple)]
OsVersions = Annotated[tuple[Version, ...], BeforeValidator(as_tuple)]
KubernetesVersions = Annotated[tuple[KubernetesVersion, ...], BeforeValidator(as_tuple)]
Suite = Annotated[str, pattern(r"[a-z]*", "the code name of a Debian suite, such as bookworm")]
ChosenVersions = Annotated[Literal["all"] | tuple[KubernetesVersion, ...], BeforeValidator(_versions)]
RelativePaths = Annotated[tuple[RelativePath, ...], BeforeValidator(as_tuple)]
KernelArguments = Annotated[tuple[KernelArgument, ...], BeforeValidator(as_tuple)]
Size = Annotated[str, pattern(r"|[0-9]{1,9}(\.[0-9]{1,3})? ?(MB|GB|TB)", "a size such as 100GB, or nothing")]
UserName = Annotated[str, pattern(r"[a-z_][a-z0-9_-]{0,31}", "a Linux user name")]
Flavor = Annotated[str, pattern(r"[A-Za-z0-9._-]+", "a flavor such as palette")]
AgentVersion = Annotated[str, pattern(r"[A-Za-z0-9._-]+", "a version such as v4.9.38")]
Builder = Annotated[str, pattern(r"[A-Za-z0-9._-]*", "the name of a buildx builder")]
Epoch = Annotated[
    int,
    BeforeValidator(_check_epoch),
    WithJsonSchema(
        {"anyOf": [{"const": "commit"}, {"type": "integer", "minimum": EPOCHS[0], "maximum": EPOCHS[-1]}]}
    ),
]
