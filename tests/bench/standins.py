"""Environments with Kubernetes payloads: stand-ins of the upstream images in a registry on loopback."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

from edgebuild.run import run
from tests.bench.machine import Bench, Site
from tests.registry_server import registry_server
from tests.upstream import mirrors, publish

RELEASE = "v4.9.38"
PAYLOAD_MB = 60  # of one Kubernetes version; measured ones are about as large
SMALL_MB = 1
VERSIONS = 58  # those of the guide's release
PER_MINOR = 20


def versions(minor: int, count: int) -> list[str]:
    """So many Kubernetes versions from 1.`minor`.0 on, as no release has them."""
    return [f"1.{minor + number // PER_MINOR}.{number % PER_MINOR}" for number in range(count)]


@dataclass(frozen=True)
class Standins:
    """`many` has 58 versions with small payloads; `large` has two, with payloads as large as real ones."""

    registry: str
    many: Site
    large: Site


@functools.cache
def standins(bench: Bench) -> Standins:
    """Published and with a finished base, once for all benchmarks."""
    demo = bench.demo
    bench.say("  (first: stand-ins of the upstream images, and the base image on them)")
    demo.call("base-image")
    debian = f"{bench.mark}/debian:12"
    run(["docker", "import", next(demo.root.glob("build/.cache/bootstrap/*/base.tar")), debian])
    registry = bench.ends.enter_context(registry_server(bench.folder / "upstream"))
    bench.cached_steps.add(f"pulled from {registry}/")
    publish(
        demo.root,
        registry,
        debian_image=debian,
        kernel_image=f"edgebuild/base-image:{demo.environment}",
        releases=[RELEASE],
        distributions=["ubuntu"],
        kubernetes_distributions=["k3s"],
        broken=False,
    )
    many = bench.site("many", _config(bench, registry, versions(50, VERSIONS), SMALL_MB))
    large = bench.site("large", _config(bench, registry, versions(80, 2), PAYLOAD_MB))
    for site in (many, large):
        _expect_little(site)
        site.call("base-image")
    return Standins(registry, many, large)


def _config(bench: Bench, registry: str, own: list[str], megabytes: int) -> str:
    known = [version for minor in range(20, 100) for version in versions(minor, PER_MINOR)]
    return json.dumps(  # which is YAML too
        {
            "schema": 1,
            "release": RELEASE,
            "os": {"distribution": "ubuntu", "version": "22.04"},
            "kubernetes": {"distribution": "k3s", "versions": own, "payload": "luet"},
            "kubernetes_versions": {"k3s": known},
            "image": {"repository": f"{bench.mark}-{megabytes}", "tag": bench.mark},
            "registries": {"mirrors": mirrors(registry)},
            "pipeline": {"luet_environment": {"STAND_IN_MB": str(megabytes)}},
        }
    )


def _expect_little(site: Site) -> None:
    """The check of the disk before a build has real images in mind; stand-ins have a fifth of their size."""
    file = site.root / "edgebuild/plan.py"
    text = file.read_text(encoding="utf-8")
    for real, little in (("KAIROS_BYTES = 15 * 10**9", "KAIROS_BYTES = 3 * 10**9"), ("400 * 10**6", "80 * 10**6")):
        assert text.count(real) == 1, real
        text = text.replace(real, little)
    file.write_text(text, encoding="utf-8")


def with_versions(own: list[str]) -> list[str]:
    """The arguments that ask for these."""
    return ["--set", f"kubernetes.versions={json.dumps(own)}"]


def rendered(site: Site, own: list[str]) -> Path:
    """The Dockerfile for these versions."""
    site.call("render", *with_versions(own))
    return site.workspace.result(site.environment, "inputs/Dockerfile")
