"""The shape of `builders`: what is said of each BuildKit that a build is spread over. Pure data."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from edgebuild.values import Name, Reference, Registry, Section, as_tuple, pattern

Endpoint = Annotated[
    str,
    pattern(
        r"[A-Za-z0-9][A-Za-z0-9._-]*|(ssh|tcp)://[A-Za-z0-9.@:_\[\]-]+|unix:///[^\s,\"]+",
        "a docker context's name, or an address such as ssh://user@host or tcp://host:2375",
    ),
]
Address = Annotated[str, pattern(r"tcp://[A-Za-z0-9.:_\[\]-]+:[0-9]{1,5}", "an address such as tcp://host:1234")]
# buildx reads its options as one line of comma-separated values.
FilePath = Annotated[str, pattern(r"[^\x00-\x1f\x7f,\"]+", "a path, without commas and quotation marks")]
HostName = Annotated[str, pattern(r"[A-Za-z0-9.-]*", "a host name")]
Quantity = Annotated[str, pattern(r"([0-9]+(\.[0-9]+)?(m|[kMGTP]i?)?)?", "an amount such as 4, 500m or 8Gi")]
Label = Annotated[str, pattern(r"[A-Za-z0-9./_-]*", "a label's key or value")]
Platform = Annotated[str, pattern(r"linux/[a-z0-9]+(/v[0-9]+)?", "a platform such as linux/amd64")]
Platforms = Annotated[tuple[Platform, ...], BeforeValidator(as_tuple), Field(min_length=1)]
Jobs = Annotated[int, Field(ge=1, le=64)]


class Tls(Section):
    """Certificates for both sides, PEM files: absolute, or relative to the repository. `key` is our own."""

    ca: FilePath
    cert: FilePath
    key: FilePath
    server_name: HostName = ""


class Resources(Section):
    cpu: Quantity = ""
    memory: Quantity = ""


class DockerBuilder(Section):
    """A docker engine: its context's name (`default` is the one here), or its address."""

    driver: Literal["docker"]
    endpoint: Endpoint = "default"
    platforms: Platforms = ("linux/amd64",)
    jobs: Jobs = 1


class RemoteBuilder(Section):
    """A buildkitd that listens. Without `tls` anybody who reaches its port is root there."""

    driver: Literal["remote"]
    endpoint: Address
    tls: Tls | None = None
    platforms: Platforms = ("linux/amd64",)
    jobs: Jobs = 1


class KubernetesBuilder(Section):
    """BuildKit in pods that buildx starts in a cluster; KUBECONFIG says which."""

    driver: Literal["kubernetes"]
    namespace: Annotated[str, pattern(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", "a namespace's name")]
    replicas: Annotated[int, Field(ge=1, le=100)] = 1
    loadbalance: Literal["sticky", "random"] = "sticky"
    requests: Resources = Resources()
    limits: Resources = Resources()
    nodeselector: dict[Label, Label] = Field(default_factory=dict)
    image: Reference = ""
    rootless: bool = False
    storage: Quantity = ""
    timeout_seconds: Annotated[int, Field(ge=0, le=3600)] = 0
    platforms: Platforms = ("linux/amd64",)
    jobs: Jobs = 1


AnyBuilder = Annotated[DockerBuilder | RemoteBuilder | KubernetesBuilder, Field(discriminator="driver")]
Builders = dict[Name, AnyBuilder]


class Cache(Section):
    registry: Registry | Literal[""]
