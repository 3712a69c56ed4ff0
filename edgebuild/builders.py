"""Builders as docker and buildx are told of them: argument lists, and what each feature needs. Pure."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgebuild.builderset import AnyBuilder, DockerBuilder, KubernetesBuilder, RemoteBuilder

PREFIX = "edgebuild"
DOCKER = ("docker",)
TAG_LENGTH = 128


@dataclass(frozen=True)
class Feature:
    """What needs a newer program than the rest: `program` is buildx or BuildKit."""

    name: str
    program: str
    minimum: tuple[int, int]


# Of the projects' release notes; what is older either refuses the option or hangs.
REMOTE = Feature("driver remote", "buildx", (0, 8))
WAITING = Feature("timeout_seconds", "buildx", (0, 15))
STORAGE = Feature("storage (a volume for each pod)", "buildx", (0, 34))
RANDOM = Feature("loadbalance random", "buildx", (0, 36))
DATES = Feature("images with fixed dates (SOURCE_DATE_EPOCH)", "BuildKit", (0, 11))
CACHE = Feature("a cache in a registry (image-manifest, ignore-error)", "BuildKit", (0, 12))
FEATURES = (REMOTE, WAITING, STORAGE, RANDOM, DATES, CACHE)


def features(builder: AnyBuilder, *, cached: bool) -> list[Feature]:
    """What this builder asks of buildx and BuildKit; `cached`: its cache goes to a registry."""
    found = [DATES, *([CACHE] if cached else [])]
    if isinstance(builder, RemoteBuilder):
        found.append(REMOTE)
    if isinstance(builder, KubernetesBuilder):
        found += [WAITING] if builder.timeout_seconds else []
        found += [STORAGE] if builder.storage else []
        found += [RANDOM] if builder.loadbalance == "random" else []
    return found


def too_old(needed: Iterable[Feature], versions: Mapping[str, str]) -> list[str]:
    """What these versions (of buildx and BuildKit) cannot do. A version without a number is not judged."""
    problems = []
    for feature in needed:
        have = re.match(r"v?(\d+)\.(\d+)", versions.get(feature.program, ""))
        # Distributions build BuildKit into the engine as v0.0.0: the engine's own version has been checked then.
        if have and (found := (int(have[1]), int(have[2]))) != (0, 0) and found < feature.minimum:
            wanted = ".".join(map(str, feature.minimum))
            problems.append(
                f"{feature.name} needs {feature.program} {wanted}, and there is {'.'.join(map(str, found))}"
            )
    return problems


@dataclass(frozen=True)
class Builder:
    """One of an environment's builders. `known_as` is its name in docker's and buildx's own lists.

    It holds hashes of the repository's folder and of all that was said of it: another address in the file is another
    builder, and two clones of a repository do not take each other's.
    """

    name: str
    settings: AnyBuilder
    root: Path

    @property
    def known_as(self) -> str:
        if isinstance(self.settings, DockerBuilder) and "://" not in self.settings.endpoint:
            return self.settings.endpoint
        return f"{self.family}{_short(self.settings.model_dump_json(exclude={'jobs', 'platforms'}))}"

    @property
    def family(self) -> str:
        """How the names of this builder begin, also those of what the file said of it before."""
        return f"{PREFIX}-{self.name}-{_short(str(self.root))}-"

    @property
    def is_here(self) -> bool:
        """Whether it is the engine that every docker command uses: what it has built needs not be brought."""
        return isinstance(self.settings, DockerBuilder) and self.settings.endpoint == "default"

    @property
    def chosen(self) -> tuple[str, ...]:
        """Its name for buildx; none for the engine here, whatever docker context that is just now."""
        return () if self.is_here else (self.known_as,)

    @property
    def is_ours(self) -> bool:
        """Whether we make it; a docker context of the user's is only used."""
        return self.known_as.startswith(self.family)

    @property
    def docker(self) -> tuple[str, ...]:
        """The docker command that reaches it: buildx knows other engines by their contexts only."""
        if isinstance(self.settings, DockerBuilder) and not self.is_here:
            return ("docker", "--context", self.known_as)
        return DOCKER


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def create_argv(builder: Builder) -> list[str]:
    """What makes docker or buildx know it; nothing for a context that is not ours."""
    settings = builder.settings
    if not builder.is_ours:
        return []
    if isinstance(settings, DockerBuilder):
        described = f"{builder.name} of {builder.root.name}"
        create = ["docker", "context", "create", builder.known_as, "--description", described]
        return [*create, "--docker", f"host={settings.endpoint}"]
    # Without --platform: what buildx is told there counts as offered, and check asks what really is.
    create = ["docker", "buildx", "create", "--name", builder.known_as, "--driver", settings.driver]
    options = _kubernetes_options(settings) if isinstance(settings, KubernetesBuilder) else _remote_options(builder)
    for option in options:
        create += ["--driver-opt", option]
    return [*create, settings.endpoint] if isinstance(settings, RemoteBuilder) else create


def _remote_options(builder: Builder) -> list[str]:
    tls = builder.settings.tls if isinstance(builder.settings, RemoteBuilder) else None
    if not tls:
        return []
    # Absolute: buildx looks for them from wherever it is called.
    files = {"cacert": tls.ca, "cert": tls.cert, "key": tls.key}
    options = [f"{name}={builder.root / path}" for name, path in files.items()]
    return [*options, f"servername={tls.server_name}"] if tls.server_name else options


def _kubernetes_options(settings: KubernetesBuilder) -> list[str]:
    values = {
        "namespace": settings.namespace,
        "replicas": str(settings.replicas),
        "loadbalance": settings.loadbalance,
        "image": settings.image,
        "requests.cpu": settings.requests.cpu,
        "requests.memory": settings.requests.memory,
        "limits.cpu": settings.limits.cpu,
        "limits.memory": settings.limits.memory,
        "rootless": "true" if settings.rootless else "",
        "persistent-volume-claim.requests.storage": settings.storage,
        "timeout": f"{settings.timeout_seconds}s" if settings.timeout_seconds else "",
    }
    options = [f"{name}={value}" for name, value in values.items() if value]
    if settings.nodeselector:
        labels = ",".join(f"{key}={value}" for key, value in settings.nodeselector.items())
        options.append(f'"nodeselector={labels}"')  # quoted, as it holds commas
    return options


def is_known_argv(builder: Builder) -> list[str]:
    """Ends with 0 where docker or buildx knows it already."""
    if isinstance(builder.settings, DockerBuilder):
        return ["docker", "context", "inspect", builder.known_as]
    return ["docker", "buildx", "inspect", builder.known_as]


def inspect_argv(builder: Builder, *, start: bool = False) -> list[str]:
    """What tells state, versions and platforms; `start` also starts its pods."""
    argv = [*builder.docker, "buildx", "inspect", *(["--bootstrap"] if start else [])]
    return [*argv, *builder.chosen]


CONTEXTS = ("docker", "context", "ls", "--format", "{{.Name}}")
BUILDERS = ("docker", "buildx", "ls")


def old_ones(builder: Builder, contexts: str, listed: str) -> list[list[str]]:
    """What removes all that it was ever known as, by the output of CONTEXTS and BUILDERS; pods go with it."""
    own = [name for name in contexts.split() if name.startswith(builder.family)]
    made = [line.split()[0].rstrip("*") for line in listed.splitlines() if line.startswith(builder.family)]
    return [
        *(["docker", "context", "rm", "--force", name] for name in own),
        *(["docker", "buildx", "rm", "--force", name] for name in made if name not in own),
    ]


@dataclass(frozen=True)
class Told:
    """What `docker buildx inspect` says of a builder's nodes. `error` is empty when all of them run."""

    buildkit: str
    platforms: frozenset[str]
    error: str


def read_inspect(text: str) -> Told:
    """The output of inspect_argv. With several nodes: what all of them offer, and the oldest BuildKit."""
    fields = re.findall(r"^(\w[\w ]*?):[ \t]*(.*)$", text, re.MULTILINE)
    found = {name.lower(): [value for other, value in fields if other.lower() == name.lower()] for name, _ in fields}
    offers = [
        frozenset(part.strip().rstrip("*") for part in value.split(",")) for value in found.get("platforms", [])
    ]
    errors = [value for value in found.get("error", []) if value]
    errors += [
        f"nothing answers there, or not to us: {each}" for each in found.get("status", []) if each != "running"
    ]
    if not errors and not found.get("status"):
        errors = ["it has no node that runs"]
    return Told(
        min(found.get("buildkit version", []), key=_numbers, default=""),
        frozenset.intersection(*offers) if offers else frozenset(),
        errors[0] if errors else "",
    )


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


# What is built together, as a family of caches: each target has a tag of its own there, so that no two write one.
FAMILIES = {
    "base-image": "base",
    "installer-image": "boot-tree",
    "boot-tree": "boot-tree",
    "provider-image": "provider",
}


def cache_sets(
    registry: str, environment: str, targets: Mapping[str, str], *, platform: str, exports: bool
) -> list[str]:
    """`--set` values for bake: the caches to begin with, and to write. `targets` is name to kind.

    All begin with the base, too. An unreachable cache is no failed build.
    """
    values = []
    base = _cache_reference(registry, environment, "base-image", "base-image", platform)
    for name, kind in targets.items():
        own = _cache_reference(registry, environment, name, kind, platform)
        values += [f"{name}.cache-from=type=registry,ref={each}" for each in dict.fromkeys((own, base))]
        if exports:
            values.append(
                f"{name}.cache-to=type=registry,ref={own},mode=max,image-manifest=true,oci-mediatypes=true,ignore-error=true"
            )
    return values


def _cache_reference(registry: str, environment: str, name: str, kind: str, platform: str) -> str:
    tag = f"{environment}-{name}-{PurePosixPath(platform).name}".lower()
    if len(tag) > TAG_LENGTH:
        tag = hashlib.sha256(tag.encode()).hexdigest()
    return f"{registry}/cache/{FAMILIES.get(kind, kind)}:{tag}"


def open_set(builders: Mapping[str, AnyBuilder], root: Path) -> list[Builder]:
    """The environment's builders; the engine here, when it names none."""
    named: Mapping[str, AnyBuilder] = builders or {"engine": DockerBuilder(driver="docker")}
    return [Builder(name, settings, root) for name, settings in named.items()]
