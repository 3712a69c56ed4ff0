"""Pushing to an empty registry: the time, and what goes over the line."""

from pathlib import Path

import docker

from edgebuild.run import run
from tests.bench.builds import many_built, provider_images
from tests.bench.goals import Measured, Row
from tests.bench.machine import Bench, Timing, paired, timed
from tests.bench.standins import VERSIONS
from tests.bench.suite import Benchmark, at_most
from tests.registry_server import faulty_proxy, registry_server

ROUNDS = 2  # one takes a minute


def renamed(bench: Bench, images: list[str], address: str) -> list[str]:
    """The same images under a name of this registry."""
    names = [f"{address}/{bench.mark}:{image.rpartition(':')[2]}" for image in images]
    client = docker.from_env()
    try:
        for image, name in zip(images, names, strict=True):
            client.images.get(image).tag(name)
    finally:
        client.close()
    return names


def stored_bytes(folder: Path) -> int:
    """Of every blob that the registry has, manifests among them; each is there once."""
    return sum(file.stat().st_size for file in folder.glob("data/docker/registry/v2/blobs/sha256/*/*/data"))


def push(bench: Bench) -> list[Measured]:
    site = many_built(bench)
    images = provider_images(site)

    def own_to(address: str) -> Timing:
        setting = ["--set", f"image.registry={address}/{bench.mark}"]
        site.call("build-provider-images", *setting)  # under this name; only the push is timed
        return site.call("push", *setting)

    def own() -> Timing:
        with registry_server(bench.scratch("registry")) as address:
            return own_to(address)

    def one_by_one() -> Timing:
        with registry_server(bench.scratch("registry")) as address:
            names = renamed(bench, images, address)
            found = timed(lambda: [run(["docker", "push", "--quiet", name]) for name in names])
            run(["docker", "image", "rm", *names])
            return found

    found = paired(own, one_by_one, ROUNDS)
    folder = bench.scratch("registry")
    with registry_server(folder) as address, faulty_proxy(address) as proxy:
        own_to(proxy.address)
        sent = sum(size for _, size in proxy.sent)
        unique = stored_bytes(folder)
    bench.scratch("registry")
    site.call("build-provider-images")
    return [found, Measured(sent / 1e6, unique / 1e6)]


BENCHMARKS = (
    Benchmark(
        "push",
        230,
        (
            Row(f"push of {VERSIONS} versions", "docker push, one by one", (at_most(1 / 2),)),
            Row(f"push of {VERSIONS} versions: bytes sent", "unique bytes", (at_most(1),), "MB"),
        ),
        push,
    ),
)
