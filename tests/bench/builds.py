"""Images: nothing changed, a package, a version, many versions, everything cold."""

import functools
import json
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import docker
import jinja2

from edgebuild import gate
from edgebuild.config import load_environment
from edgebuild.container import image_argv
from edgebuild.plan import upstream_images
from edgebuild.run import run
from tests.bench import byhand
from tests.bench.goals import Measured, Row, number, slowest
from tests.bench.machine import MARK, ROUNDS, Bench, Site, Timing, paired, timed
from tests.bench.report import TEMPLATES
from tests.bench.standins import PAYLOAD_MB, VERSIONS, standins, versions, with_versions
from tests.bench.suite import Benchmark, at_most

TEN = 10
OWN_MINOR, BAKE_MINOR, CANVOS_MINOR, ONE_MORE_MINOR = 90, 94, 98, 82
PACKAGE = "tree"
# Stages that another package of the system must not touch.
UNTOUCHED = re.compile(r"\[(kubernetes-|provider-files|luet|tools|agent-files|boot-tools).*?\] (RUN|COPY|ADD)")


@functools.cache
def many_built(bench: Bench) -> Site:
    """All 58 versions and the ISO are there."""
    site = standins(bench).many
    site.call("build-all-images")
    return site


@functools.cache
def large_built(bench: Bench) -> Site:
    """Two versions with large payloads and the ISO are there."""
    site = standins(bench).large
    site.call("build-all-images")
    return site


def unchanged(bench: Bench) -> list[Measured]:
    site = many_built(bench)
    targets = site.targets()
    found = paired(lambda: site.call("build-all-images"), lambda: site.bake(targets))
    # Once to have them all, as bake's are there too.
    by_hand = functools.partial(byhand.one_after_another, site, targets, bench.mark)
    by_hand()
    return [found, Measured(found.own, timed(by_hand).seconds)]


def layers(image: str) -> list[str]:
    """The digests of an image's layers, the base's first."""
    found: list[str] = json.loads(run(["docker", "image", "inspect", image]).stdout)[0]["RootFS"]["Layers"]
    return found


def provider_images(site: Site) -> list[str]:
    plan = json.loads(site.workspace.call("plan", "--env", site.environment, "--json").stdout)
    return [each["tags"][0] for each in plan["targets"] if each["kind"] == "provider-image"]


def package(bench: Bench) -> list[Measured]:
    """Not a matter of time: what is touched at all."""
    site = large_built(bench)
    images = provider_images(site)
    before = [layers(image)[-2:] for image in images]
    logs = site.workspace.result(site.environment, "logs")
    old = set(logs.iterdir())
    site.call("build-all-images", "--set", f"os.packages={json.dumps([PACKAGE])}")
    after = [layers(image)[-2:] for image in images]
    moved = [
        f"{image.rpartition(':')[2]} layer {number}"
        for image, old_layers, new_layers in zip(images, before, after, strict=True)
        for number, (was, new) in enumerate(zip(old_layers, new_layers, strict=True), -2)
        if new != was
    ]
    text = "".join(file.read_text(encoding="utf-8") for file in set(logs.iterdir()) - old)
    ran = re.findall(r"(?m)^--- (\[.*?\].*?) --- [\d.]+ s$", text)
    assert any(title.startswith("[base-image") for title in ran), text
    wrong = [title for title in ran if UNTOUCHED.match(title)]
    site.call("build-all-images")  # as it was, for who comes next
    return [Measured(len(moved), reason="; ".join(moved)), Measured(len(wrong), reason="; ".join(wrong))]


def one_version(bench: Bench) -> list[Measured]:
    """The payload comes from the package repository's stand-in, which makes it as fast as a file is copied."""
    site = large_built(bench)
    folder = bench.scratch("one-version")
    payload, copied = folder / "payload", folder / "copy"
    payload.write_bytes(b"\1" * PAYLOAD_MB * 10**6)
    fresh = iter(versions(ONE_MORE_MINOR, 2 * ROUNDS))
    asked: list[str] = []

    def own() -> object:
        asked.append(next(fresh))
        return site.call("build-all-images", *with_versions([*versions(80, 2), asked[-1]]))

    bench.cached_steps |= {f"1.{ONE_MORE_MINOR}.", f"1-{ONE_MORE_MINOR}-"}
    found = paired(own, lambda: byhand.copy(payload, copied))
    image = f"1.{ONE_MORE_MINOR}.{len(asked) - 1}"
    tag = next(
        each["tags"][0]
        for each in json.loads(
            site.workspace.call("plan", "--env", site.environment, "--json", *with_versions([image])).stdout
        )["targets"]
        if each["kind"] == "provider-image"
    )
    return [with_checks(found, site), Measured(unique_bytes(tag) / 1e6, PAYLOAD_MB)]


def with_checks(found: Measured, site: Site) -> Measured:
    """Its reason, with what the check of an image takes: the other side has none."""
    images = provider_images(site)
    seconds = timed(lambda: [run(image_argv(image, gate.SCRIPT)) for image in images]).seconds / len(images)
    return replace(found, reason=f"{found.reason}; {number(seconds)} s for each image that is checked")


def unique_bytes(tag: str) -> int:
    """What the engine's disk holds for this image alone, as in `docker system df -v`."""
    client = docker.from_env()
    try:
        images = client.df()["Images"]
    finally:
        client.close()
    image = next(each for each in images if tag in (each["RepoTags"] or []))
    return int(image["Size"] - image["SharedSize"])


def ten_versions(bench: Bench) -> list[Measured]:
    """All that stands on the base is new: payloads, images, boot tree, ISO."""
    site = large_built(bench)
    folder = bench.scratch("ten-versions")
    mark = site.root / "overlay/files/opt/bench-mark"
    mark.parent.mkdir(parents=True, exist_ok=True)
    own_versions, bake_versions = (iter(versions(minor, TEN * ROUNDS)) for minor in (OWN_MINOR, BAKE_MINOR))
    bench.cached_steps |= {f"1{sign}9{digit}{sign}" for sign in ".-" for digit in range(10)}

    def take(source: object) -> list[str]:
        return [next(source) for _ in range(TEN)]  # type: ignore[call-overload]

    def own() -> object:
        mark.write_text(f"own {time.time()}\n")
        return site.call("build-all-images", *with_versions(take(own_versions)))

    def by_bake() -> object:
        mark.write_text(f"bake {time.time()}\n")
        asked = take(bake_versions)
        site.call("render", *with_versions(asked))
        targets = [*(f"provider-image-{version.replace('.', '-')}" for version in asked), "iso-image", "boot-tree"]
        return timed(lambda: byhand.bake_and_xorriso(site, targets, folder))

    found = paired(own, by_bake)
    canvos = timed(lambda: by_canvos(bench, site, versions(CANVOS_MINOR, TEN), folder))
    mark.unlink()
    site.call("build-all-images")
    found = with_checks(found, site)
    return [found, Measured(found.own, canvos.seconds, found.reason)]


def by_canvos(bench: Bench, site: Site, asked: Sequence[str], folder: Path) -> None:
    environment = load_environment(site.root, site.environment, environ={})
    images = {f"provider-{version.replace('.', '-')}": version for version in asked}
    text = jinja2.Template((TEMPLATES / "canvos.Dockerfile.j2").read_text(), undefined=jinja2.StrictUndefined).render(
        upstream=upstream_images(environment),
        base=f"edgebuild/base-image:{site.environment}",
        tools=site.boot_tree,
        images=images,
        megabytes=PAYLOAD_MB,
        mark=f"{MARK} {time.time()}",
    )
    byhand.canvos(site, text, list(images), folder, bench.mark)


def make_cold(site: Site, pipeline: str, side: str) -> None:
    """A step that nobody has run before at the head of both chains."""
    step = f"RUN true {MARK} {side} {time.time()}\n"
    for stage in (" AS upstream-base\n", " AS tools\n"):
        assert stage in pipeline, stage
        pipeline = pipeline.replace(stage, f"{stage}{step}")
    (site.root / "Dockerfile.j2").write_text(pipeline)


@functools.cache
def cold_build(bench: Bench) -> Timing:
    """Everything from the packages on, once; the repository is then as it was."""
    site = bench.demo
    pipeline = (site.root / "Dockerfile.j2").read_text()
    try:
        make_cold(site, pipeline, "own")
        found = site.call("build-all-images")
    finally:
        (site.root / "Dockerfile.j2").write_text(pipeline)
    site.call("build-all-images")
    return found


def cold(bench: Bench) -> list[Measured]:
    """Once each: one takes half a minute."""
    site = bench.demo
    own, targets, folder = cold_build(bench), site.targets(), bench.scratch("cold")
    pipeline = (site.root / "Dockerfile.j2").read_text()
    try:
        make_cold(site, pipeline, "plain")
        site.call("render")
        other = timed(lambda: byhand.bake_and_xorriso(site, targets, folder))
    finally:
        (site.root / "Dockerfile.j2").write_text(pipeline)
    site.call("render")
    bench.scratch("cold")
    return [Measured(own.seconds, other.seconds, slowest(own.steps))]


BENCHMARKS = (
    Benchmark(
        "unchanged",
        150,
        (
            Row(f"nothing changed, ISO and {VERSIONS} versions", "bake", (at_most(plus=1), at_most(1 / 5))),
            Row(f"nothing changed, ISO and {VERSIONS} versions: guide", "the guide's steps"),
        ),
        unchanged,
    ),
    Benchmark(
        "package",
        70,
        (
            Row("another OS package: payload layers that moved", "", (at_most(plus=0),), "layers"),
            Row("another OS package: other steps run again", "", (at_most(plus=0),), "steps"),
        ),
        package,
    ),
    Benchmark(
        "version",
        15,
        (
            Row(f"one more Kubernetes version ({PAYLOAD_MB} MB)", "cp of its payload", (at_most(1, plus=2),)),
            Row("one more Kubernetes version: disk", "its payload", (at_most(1, plus=1),), "MB"),
        ),
        one_version,
    ),
    Benchmark(
        "versions",
        200,
        (
            Row(f"{TEN} versions ({PAYLOAD_MB} MB each) and ISO", "bake and xorriso", (at_most(1.03),)),
            Row(f"{TEN} versions and ISO: CanvOS", "the CanvOS way", (at_most(1 / 4),)),
        ),
        ten_versions,
    ),
    Benchmark("cold", 80, (Row("build-all-images, cold", "bake and xorriso", (at_most(1.05),)),), cold),
)
