"""The plan: names, tags, upstream images and mirrors."""

import json
from pathlib import Path

import pytest

from edgebuild.config import load_environment
from edgebuild.plan import image_tag, make_plan, mirrored


def plan_of(root: Path, name: str, *settings: str):  # type: ignore[no-untyped-def]
    environment = load_environment(root, name, environ={}, settings=settings)
    return environment, make_plan(name, environment)


def test_image_names_are_the_guides(root: Path) -> None:
    settings = ["release=v3.4.3", "kubernetes.versions=all", "image.tag=palette-learn"]
    _, plan = plan_of(root, "basic", *settings)
    assert [target.tags for target in plan.of_kind("provider-image")] == [
        ("ttl.sh/ubuntu:k3s-1.24.6-v3.4.3-palette-learn",),
        ("ttl.sh/ubuntu:k3s-1.25.2-v3.4.3-palette-learn",),
    ]


def test_empty_tag_leaves_no_dash(root: Path) -> None:
    environment, plan = plan_of(root, "basic", "image.tag=")
    assert plan.of_kind("provider-image")[0].tags == ("ttl.sh/ubuntu:k3s-1.33.6-v4.9.38",)
    assert plan.of_kind("installer-image")[0].tags == ("palette-installer-image:v4.9.38",)
    assert image_tag(environment, "x") == "k3s-x-v4.9.38"


def test_json_names_every_upstream_image(root: Path) -> None:
    _, plan = plan_of(root, "basic", "registries.mirrors={us-docker.pkg.dev: mirror.example.com/us}")
    shown = json.loads(json.dumps(plan.to_json()))
    assert set(shown) == {"environment", "release", "platform", "targets"}
    provider = next(target for target in shown["targets"] if target["kind"] == "provider-image")
    assert provider["upstream"] == {
        "base": "mirror.example.com/us/palette-images/edge/kairos-ubuntu:22.04-core-amd64-generic-v4.0.4",
        "agent": "mirror.example.com/us/palette-images/edge/stylus-framework-linux-amd64:v4.9.38",
        "kairos_provider": "mirror.example.com/us/palette-images/edge/kairos-io/provider-k3s:v4.9.7",
        "k8s_package_repository": "mirror.example.com/us/palette-images/edge/luet-repo-amd",
        "third_party": "mirror.example.com/us/palette-images/third-party/spectro-third-party:4.8",
        "tools": "docker.io/library/debian:12-slim",
    }
    assert {target["kind"] for target in shown["targets"]} == {
        "base-image",
        "provider-image",
        "installer-image",
        "boot-tree",
        "iso",
    }
    assert shown["targets"][-1]["path"] == "build/basic/palette-edge-installer.iso"


def test_demo_pulls_nothing(root: Path) -> None:
    _, plan = plan_of(root, "demo")
    assert all(target.upstream == {} for target in plan.targets)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("quay.io/kairos/a:1", "mirror:5000/quay.io/kairos/a:1"),
        ("quay.io.example.com/a:1", "quay.io.example.com/a:1"),
        ("gcr.io/spectro/a:1", "special.example.com/a:1"),
        ("gcr.io/other/a:1", "gcr.example.com/other/a:1"),
        ("debian:12", "hub.example.com/library/debian:12"),
        ("kairos/a:1", "hub.example.com/kairos/a:1"),
        ("localhost/a:1", "localhost/a:1"),
    ],
)
def test_mirrors(reference: str, expected: str) -> None:
    mirrors = {
        "quay.io": "mirror:5000/quay.io",
        "gcr.io": "gcr.example.com",
        "gcr.io/spectro": "special.example.com",
        "docker.io": "hub.example.com",
    }
    assert mirrored(reference, mirrors) == expected
