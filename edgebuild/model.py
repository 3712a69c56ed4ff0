"""The shape of an environment: what every key is, and what it may hold. Pure data."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

HOST = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*(:[0-9]{1,5})?")
PATH_PART = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*")  # OCI distribution specification
TAG = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")
FIXED_EPOCH = 1704067200  # 2024-01-01: where no commit tells the date, and where no commit may change it
EPOCHS = range(315532800, 4102444801)  # 1980, where FAT begins, to 2100
REFERENCE = re.compile(r"[a-z0-9][a-zA-Z0-9._:/-]*(@sha256:[0-9a-f]{64})?")


def _check_registry(text: str) -> str:
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
    if text and not re.fullmatch(r"env:[A-Za-z_][A-Za-z0-9_]*|file:.+", text):
        raise ValueError("expected a reference, env:NAME or file:PATH; a secret's value never stands in a file")
    return text


def _check_proxy(text: str) -> str:
    if text and not re.fullmatch(r"https?://[^\s'\"]+", text):
        raise ValueError("expected a proxy address such as http://proxy.example.com:3128")
    return text


def _check_relative(text: str) -> str:
    if text.startswith("/") or ".." in text.split("/"):
        raise ValueError("expected a path inside the repository")
    return text


def _pattern(pattern: str, expected: str) -> AfterValidator:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"expected {expected}")
        return text

    return AfterValidator(check)


def _text_if_number(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _versions(value: Any) -> Any:
    if isinstance(value, str) and value != "all":
        return (value,)
    return _tuple(value)


def _check_epoch(value: Any) -> Any:
    """`commit` as 0, which is no date."""
    if value == "commit":
        return 0
    if type(value) is int and value in EPOCHS:
        return value
    raise ValueError(f"expected commit, or seconds since 1970 from {EPOCHS[0]} to {EPOCHS[-1]}")


Version = Annotated[str, BeforeValidator(_text_if_number), _pattern(r"[0-9]+(\.[0-9]+)*", "a version such as 22.04")]
KubernetesVersion = Annotated[str, _pattern(r"[0-9]+\.[0-9]+\.[0-9]+", "a version such as 1.33.6")]
Package = Annotated[str, _pattern(r"[A-Za-z0-9][A-Za-z0-9+._:~=-]*", "a package name")]
Name = Annotated[str, _pattern(r"[a-z0-9][a-z0-9_-]{0,62}", "lower-case letters, digits, - and _, without spaces")]
KernelArgument = Annotated[str, _pattern(r"[A-Za-z0-9_.,:;=/@+%-]+", "one kernel argument without spaces")]
Reference = Annotated[str, AfterValidator(_check_reference)]
Secret = Annotated[str, AfterValidator(_check_secret)]
RelativePath = Annotated[str, AfterValidator(_check_relative)]
Packages = Annotated[tuple[Package, ...], BeforeValidator(_tuple)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_tuple)]
Epoch = Annotated[
    int,
    BeforeValidator(_check_epoch),
    WithJsonSchema(
        {"anyOf": [{"const": "commit"}, {"type": "integer", "minimum": EPOCHS[0], "maximum": EPOCHS[-1]}]}
    ),
]
KubernetesVersions = Annotated[tuple[KubernetesVersion, ...], BeforeValidator(_tuple)]


class Section(BaseModel):
    """A mapping of the configuration: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Os(Section):
    distribution: str
    version: Version
    arch: str
    base_image: Reference
    bootstrap: Annotated[str, _pattern(r"[a-z]*", "the code name of a Debian suite, such as bookworm")]
    packages: Packages
    update_kernel: bool
    disable_selinux: bool


class Kubernetes(Section):
    distribution: str
    versions: Annotated[Literal["all"] | tuple[KubernetesVersion, ...], BeforeValidator(_versions)]
    payload: Literal["luet", "none"]
    bundle: bool


class Image(Section):
    registry: Annotated[str, AfterValidator(_check_registry)]
    repository: Annotated[str, AfterValidator(_check_repository)]
    tag: Annotated[str, AfterValidator(_check_tag)]


class Iso(Section):
    name: Name
    compression: Literal["fast", "small", "smallest"]
    content: Annotated[tuple[RelativePath, ...], BeforeValidator(_tuple)]
    cluster_definition: RelativePath
    interactive: bool
    kernel_arguments: Annotated[tuple[KernelArgument, ...], BeforeValidator(_tuple)]
    epoch_: Annotated[Epoch, Field(alias="epoch")]

    @property
    def epoch(self) -> int:
        """Seconds since 1970: every date in boot tree and ISO. A fixed one where no commit has told it."""
        return self.epoch_ or FIXED_EPOCH


class User(Section):
    name: Annotated[str, _pattern(r"[a-z_][a-z0-9_-]{0,31}", "a Linux user name")]


class Secrets(Section):
    edge_host_token: Secret
    user_password: Secret
    luet_auth: Secret


class Registries(Section):
    public: Reference
    luet: Reference
    kairos: Reference
    mirrors: dict[str, Annotated[str, AfterValidator(_check_registry)]]


class Proxy(Section):
    http: Annotated[str, AfterValidator(_check_proxy)]
    https: Annotated[str, AfterValidator(_check_proxy)]
    no_proxy: Texts


class Push(Section):
    jobs: Annotated[int, Field(ge=1, le=64)]
    stall_seconds: Annotated[int, Field(ge=1, le=3600)]


class Signing(Section):
    key: Secret
    password: Secret


class Images(Section):
    base: dict[str, Reference]
    agent: Reference
    kairos_provider: Reference
    k8s_package_repository: Reference
    third_party: Reference
    tools: Reference


class Distribution(Section):
    """What a release knows of one distribution, and what its base-image step adds to it."""

    versions: Texts
    packages: Packages
    common_packages: Packages
    step_architectures: Texts


class Pipeline(Section):
    """The steps in which the release lines differ."""

    usb_media_drivers: bool
    kernel_policy: bool
    kairos_release: bool
    boot_arguments: bool
    provider_overlay: bool
    provider_move: bool
    system_extensions: bool
    agent_files: Texts
    third_party_flavor: str
    luet_environment: dict[str, str]


class Firmware(Section):
    """Kernel arguments that differ between the two kinds of firmware."""

    efi: str
    bios: str


class MenuEntry(Section):
    title: str
    arguments: str
    trailing: str


class Grub(Section):
    """The installer's boot menu. `line` and `arguments` hold {console}, {entry} and {video}."""

    line: str
    console: Firmware
    video: Firmware
    entries: Annotated[tuple[MenuEntry, ...], BeforeValidator(_tuple)]


class Environment(Section):
    """One environment, complete: the result of all layers, expressions resolved."""

    schema_: Annotated[Literal[1], Field(alias="schema")]
    release: str
    pe_version: Annotated[str, _pattern(r"[A-Za-z0-9._-]+", "a version such as v4.9.38")]
    os: Os
    kubernetes: Kubernetes
    image: Image
    iso: Iso
    user: User
    secrets: Secrets
    certs: RelativePath
    registries: Registries
    proxy: Proxy
    push: Push
    signing: Signing
    builder: Annotated[str, _pattern(r"[A-Za-z0-9._-]*", "the name of a buildx builder")]
    architectures: Texts
    components: dict[str, Any]
    images: Images
    distributions: dict[str, Distribution]
    pipeline: Pipeline
    kubernetes_packages: dict[str, Texts]
    kubernetes_versions: dict[str, KubernetesVersions]
    grub: Grub

    @model_validator(mode="after")
    def _consistent(self) -> "Environment":
        problems = [*self._os_problems(), *self._kubernetes_problems()]
        if problems:
            raise ValueError("\0".join(problems))
        return self

    def _os_problems(self) -> list[str]:
        os = self.os
        problems = []
        if os.arch not in self.architectures:
            problems.append(f"os.arch: {self.release} has no {os.arch!r}; there are: {', '.join(self.architectures)}")
        if os.base_image and os.bootstrap:
            problems.append("os.bootstrap: a base is either an image (os.base_image) or made here, not both")
        known = self.distributions.get(os.distribution)
        if known is None:
            names = ", ".join(self.distributions)
            problems.append(f"os.distribution: {self.release} has no {os.distribution!r}; there are: {names}")
        elif not os.base_image:
            if os.version not in known.versions:
                there = ", ".join(known.versions)
                problems.append(f"os.version: {os.distribution} has no {os.version!r} here; there are: {there}")
            if not os.bootstrap and os.distribution not in self.images.base:
                problems.append(
                    f"os.base_image: {self.release} has no base image for {os.distribution}; name one here"
                )
        if os.bootstrap and os.distribution != "debian":
            problems.append("os.bootstrap: only the distribution debian can be made from packages")
        return problems

    def _kubernetes_problems(self) -> list[str]:
        kubernetes = self.kubernetes
        known = self.kubernetes_versions.get(kubernetes.distribution)
        if known is None:
            names = ", ".join(self.kubernetes_versions)
            return [f"kubernetes.distribution: {self.release} has no {kubernetes.distribution!r}; there are: {names}"]
        problems = []
        if kubernetes.payload != "none" and self.os.bootstrap:
            problems.append(
                "kubernetes.payload: a base made by os.bootstrap takes none; set kubernetes.payload: none"
            )
        elif kubernetes.payload != "none" and kubernetes.versions != "all":
            problems += [
                f"kubernetes.versions: {self.release} has no {kubernetes.distribution} {version}; "
                f"there are: {', '.join(known)}"
                for version in kubernetes.versions
                if version not in known
            ]
        versions = self.versions
        if not versions:
            problems.append("kubernetes.versions: name at least one version, or all")
        if len(set(versions)) != len(versions):
            problems.append("kubernetes.versions: a version stands there twice")
        return problems

    @property
    def versions(self) -> tuple[str, ...]:
        """The Kubernetes versions to build."""
        if self.kubernetes.versions == "all":
            return self.kubernetes_versions[self.kubernetes.distribution]
        return self.kubernetes.versions
