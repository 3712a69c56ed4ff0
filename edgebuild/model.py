"""The shape of an environment: what every key is, and what it may hold. Pure data."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from edgebuild.builderset import Builders, Cache
from edgebuild.values import (
    FIXED_EPOCH,
    OS_FAMILIES,
    Addresses,
    AgentFiles,
    AgentVersion,
    Architectures,
    Builder,
    ChosenVersions,
    DistributionName,
    Epoch,
    Flavor,
    KernelArguments,
    KubernetesVersions,
    Line,
    LuetPackages,
    Name,
    OsVersions,
    PackageMirror,
    Packages,
    ProxyAddress,
    Reference,
    Registry,
    RelativePath,
    RelativePaths,
    Release,
    Repository,
    Secret,
    Section,
    Size,
    Suite,
    Tag,
    Title,
    UserName,
    Variable,
    Version,
    as_tuple,
)


class Os(Section):
    distribution: DistributionName
    version: Version
    arch: str
    base_image: Reference
    bootstrap: Suite
    packages: Packages
    update_kernel: bool
    disable_selinux: bool


class Kubernetes(Section):
    distribution: DistributionName
    versions: ChosenVersions
    payload: Literal["luet", "none"]
    bundle: bool


class Image(Section):
    registry: Registry
    repository: Repository
    tag: Tag


class Iso(Section):
    name: Name
    compression: Literal["fast", "small", "smallest"]
    content: RelativePaths
    cluster_definition: RelativePath
    interactive: bool
    kernel_arguments: KernelArguments
    epoch_: Annotated[Epoch, Field(alias="epoch")]

    @property
    def epoch(self) -> int:
        """Seconds since 1970: every date in boot tree and ISO. A fixed one where no commit has told it."""
        return self.epoch_ or FIXED_EPOCH


class User(Section):
    name: UserName


class Secrets(Section):
    edge_host_token: Secret
    user_password: Secret
    luet_auth: Secret


class Registries(Section):
    public: Reference
    luet: Reference
    kairos: Reference
    mirrors: dict[str, Registry]


class Proxy(Section):
    http: ProxyAddress
    https: ProxyAddress
    no_proxy: Addresses


class Push(Section):
    require: Literal["", "verified"]
    jobs: Annotated[int, Field(ge=1, le=64)]
    stall_seconds: Annotated[int, Field(ge=1, le=3600)]


class Limits(Section):
    jobs: Annotated[int, Field(ge=0, le=1000)]
    target_memory: Annotated[int, Field(ge=0, le=1_000_000)]
    disk: Size


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

    versions: OsVersions
    packages: Packages
    common_packages: Packages
    step_architectures: Architectures


class Pipeline(Section):
    """The steps in which the release lines differ."""

    usb_media_drivers: bool
    kernel_policy: bool
    kairos_release: bool
    boot_arguments: bool
    provider_overlay: bool
    provider_move: bool
    system_extensions: bool
    agent_files: AgentFiles
    third_party_flavor: Flavor
    luet_environment: dict[Variable, Line]


class Firmware(Section):
    """Kernel arguments that differ between the two kinds of firmware."""

    efi: Line
    bios: Line


class MenuEntry(Section):
    title: Title
    arguments: Line
    trailing: Line


class Grub(Section):
    """The installer's boot menu. `line` and `arguments` hold {console}, {entry} and {video}."""

    line: Line
    console: Firmware
    video: Firmware
    entries: Annotated[tuple[MenuEntry, ...], BeforeValidator(as_tuple)]


class Environment(Section):
    """One environment, complete: the result of all layers, expressions resolved."""

    schema_: Annotated[Literal[1], Field(alias="schema")]
    release: Release
    pe_version: AgentVersion
    os: Os
    kubernetes: Kubernetes
    image: Image
    iso: Iso
    user: User
    secrets: Secrets
    certs: RelativePath
    lock: bool
    registries: Registries
    package_mirrors: dict[DistributionName, PackageMirror]
    offline: bool
    proxy: Proxy
    push: Push
    limits: Limits
    signing: Signing
    builder: Builder
    builders: Builders
    cache: Cache
    architectures: Architectures
    components: dict[str, Any]
    images: Images
    distributions: dict[str, Distribution]
    pipeline: Pipeline
    kubernetes_packages: dict[DistributionName, LuetPackages]
    kubernetes_versions: dict[DistributionName, KubernetesVersions]
    grub: Grub

    @model_validator(mode="after")
    def _consistent(self) -> "Environment":
        problems = [*self._os_problems(), *self._image_problems(), *self._kubernetes_problems()]
        problems += self._builder_problems()
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
        elif os.distribution not in OS_FAMILIES:
            names = ", ".join(OS_FAMILIES)
            problems.append(f"os.distribution: {os.distribution} has no steps here; there are: {names}")
        elif not os.base_image:
            if os.version not in known.versions:
                there = ", ".join(known.versions)
                problems.append(f"os.version: {os.distribution} has no {os.version!r} here; there are: {there}")
            if not os.bootstrap and not self.images.base.get(os.distribution):
                problems.append(
                    f"os.base_image: {self.release} has no base image for {os.distribution}; name one here"
                )
        if os.bootstrap and os.distribution != "debian":
            problems.append("os.bootstrap: only the distribution debian can be made from packages")
        return problems

    def _image_problems(self) -> list[str]:
        if self.os.bootstrap:
            return []
        needed = ["agent", "kairos_provider", "tools"]
        if self.kubernetes.payload != "none":
            needed.append("k8s_package_repository")
        problems = [f"images.{name}: {self.release} needs one" for name in needed if not getattr(self.images, name)]
        if self.kubernetes.payload != "none" and not self.kubernetes_packages.get(self.kubernetes.distribution):
            problems.append(f"kubernetes_packages: {self.release} names none for {self.kubernetes.distribution}")
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

    def _builder_problems(self) -> list[str]:
        platform = f"linux/{self.os.arch}"
        problems = (
            ["builder: name either one builder, or several in builders"] if self.builder and self.builders else []
        )
        if self.builders and not any(platform in each.platforms for each in self.builders.values()):
            problems.append(f"builders: none is for {platform}, which os.arch asks for")
        return problems

    @property
    def versions(self) -> tuple[str, ...]:
        """The Kubernetes versions to build."""
        if self.kubernetes.versions == "all":
            return self.kubernetes_versions[self.kubernetes.distribution]
        return self.kubernetes.versions
