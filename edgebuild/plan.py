"""What will be built, as data: targets with their tags, paths and upstream images. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from edgebuild.model import Environment

Kind = Literal["base-image", "provider-image", "installer-image", "boot-tree", "iso"]
ALL_KINDS: tuple[Kind, ...] = ("provider-image", "installer-image", "boot-tree", "iso")
ISO_KINDS: tuple[Kind, ...] = ("installer-image", "boot-tree", "iso")

# A rough estimate of what a build needs on the engine's disk, in bytes. A Kairos base is about 4 GB, and stands there
# several times: pulled, customized, as squashfs and in the ISO. The bootstrapped Debian has 0.8 GB.
KAIROS_BYTES = 15 * 10**9
BOOTSTRAP_BYTES = 5 * 10**9
VERSION_BYTES = 400 * 10**6


@dataclass(frozen=True)
class Target:
    """One thing that can be asked for. `name` is its stage in the Dockerfile; `path` is relative to the root."""

    name: str
    kind: Kind
    tags: tuple[str, ...] = ()
    kubernetes_version: str | None = None
    path: str | None = None
    upstream: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """All targets of one environment, in build order."""

    environment: str
    release: str
    platform: str
    targets: tuple[Target, ...]

    def of_kind(self, kind: Kind) -> tuple[Target, ...]:
        return tuple(target for target in self.targets if target.kind == kind)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(target.name for target in self.targets)

    @property
    def iso(self) -> Target:
        return self.of_kind("iso")[0]

    @property
    def boot_tree(self) -> Target:
        return self.of_kind("boot-tree")[0]

    @property
    def estimated_bytes(self) -> int:
        """Roughly what the engine's disk must hold while this is built."""
        base = KAIROS_BYTES if "base" in self.targets[0].upstream else BOOTSTRAP_BYTES
        return base + VERSION_BYTES * len(self.of_kind("provider-image"))

    def to_json(self) -> dict[str, Any]:
        """For programs: what `inv plan --json` prints."""
        return asdict(self)


def mirrored(reference: str, mirrors: Mapping[str, str]) -> str:
    """The reference with its host, or the longest host/path that `mirrors` names, replaced.

    A reference without host is Docker Hub's, as everywhere: `debian:12` is docker.io/library/debian:12.
    """
    host, slash, _ = reference.partition("/")
    if not slash:
        full = f"docker.io/library/{reference}"
    elif "." not in host and ":" not in host and host != "localhost":
        full = f"docker.io/{reference}"
    else:
        full = reference
    for upstream in sorted(mirrors, key=len, reverse=True):
        if full.startswith(upstream + "/"):
            return mirrors[upstream] + full[len(upstream) :]
    return reference


def upstream_images(environment: Environment) -> dict[str, str]:
    """Every image that this environment can pull, after mirrors, under its name in config/releases/."""
    mirrors = environment.registries.mirrors
    return {name: mirrored(image, mirrors) for name, image in upstream_sources(environment).items()}


def upstream_sources(environment: Environment) -> dict[str, str]:
    """The same before mirrors: what the images are wherever they are pulled from."""
    images = environment.images
    if environment.os.bootstrap:
        return {}
    found = {
        "base": environment.os.base_image or images.base[environment.os.distribution],
        "agent": images.agent,
        "kairos_provider": images.kairos_provider,
        "k8s_package_repository": images.k8s_package_repository,
        "third_party": images.third_party,
        "tools": images.tools,
    }
    return {name: image for name, image in found.items() if image}


def image_tag(environment: Environment, version: str) -> str:
    """[distribution]-[version]-[pe_version]-[tag]; `version` may be a macro of Palette."""
    parts = [environment.kubernetes.distribution, version, environment.pe_version, environment.image.tag]
    return "-".join(part for part in parts if part)


def make_plan(name: str, environment: Environment) -> Plan:
    """The plan of environment `name`."""
    upstream = upstream_images(environment)

    def pulled(*names: str) -> dict[str, str]:
        return {image: upstream[image] for image in names if image in upstream}

    payload = environment.kubernetes.payload != "none"
    provider_names = ("base", "agent", "kairos_provider", "k8s_package_repository", "third_party", "tools")
    provider = pulled(*provider_names) if payload else pulled("base")
    repository = f"{environment.image.registry}/{environment.image.repository}"
    installer_tag = "-".join(part for part in (environment.pe_version, environment.image.tag) if part)
    boot = pulled("base", "agent", "tools")
    return Plan(
        environment=name,
        release=environment.release,
        platform=f"linux/{environment.os.arch}",
        targets=(
            Target("base-image", "base-image", (f"edgebuild/base-image:{name}",), upstream=pulled("base")),
            *(
                Target(
                    f"provider-image-{version.replace('.', '-')}",
                    "provider-image",
                    (f"{repository}:{image_tag(environment, version)}",),
                    kubernetes_version=version,
                    upstream=provider,
                )
                for version in environment.versions
            ),
            Target(
                "iso-image",
                "installer-image",
                (f"palette-installer-image:{installer_tag}",),
                upstream=pulled("base", "agent", "tools"),
            ),
            Target("boot-tree", "boot-tree", (f"edgebuild/boot-tree:{name}",), upstream=boot),
            Target("iso", "iso", path=f"build/{name}/{environment.iso.name}.iso", upstream=boot),
        ),
    )


def profile_values(environment: Environment) -> dict[str, str]:
    """The values of the cluster profile's `system.…` options, in the guide's order."""
    values = {
        "system.registry": environment.image.registry,
        "system.repo": environment.image.repository,
        "system.k8sDistribution": environment.kubernetes.distribution,
        "system.osName": environment.os.distribution,
        "system.peVersion": environment.pe_version,
        "system.customTag": environment.image.tag,
        "system.osVersion": environment.os.version,
    }
    if not environment.image.tag:
        del values["system.customTag"]
    return values
