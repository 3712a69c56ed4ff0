"""Stand-ins for upstream images, made from Debian and pushed to a loopback registry under their own names."""

import json
from collections.abc import Sequence
from pathlib import Path

from edgebuild.config import load_environment
from edgebuild.plan import upstream_images
from edgebuild.run import run

FOLDER = Path(__file__).parent
HOSTS = ("us-docker.pkg.dev", "gcr.io", "ghcr.io", "quay.io", "docker.io")
RELEASES = ("v3.4.3", "v4.9.38", "v4.10.0-rc.10")
DISTRIBUTIONS = ("ubuntu", "opensuse-leap")
KUBERNETES = ("k3s", "rke2", "kubeadm")


def mirrors(registry: str) -> dict[str, str]:
    """`registries.mirrors` that sends every upstream host to the loopback registry."""
    return {host: f"{registry}/{host}" for host in HOSTS}


def mirror_setting(registry: str) -> str:
    """The same as a `--set` argument."""
    return f"registries.mirrors={json.dumps(mirrors(registry))}"


def publish(
    root: Path,
    registry: str,
    *,
    debian_image: str,
    kernel_image: str,
    releases: Sequence[str] = RELEASES,
    distributions: Sequence[str] = DISTRIBUTIONS,
    kubernetes_distributions: Sequence[str] = KUBERNETES,
    broken: bool = True,
) -> set[str]:
    """Build and push the stand-ins of these releases, distributions and Kubernetes distributions, in one call.

    `broken` are those that only the failure tests use.
    """
    references: dict[str, tuple[str, str]] = {}  # reference to stage and Kubernetes distribution
    for release in releases:
        old = "-v3" if release.startswith("v3") else ""
        for distribution in distributions:
            for kubernetes in kubernetes_distributions:
                environment = load_environment(
                    root,
                    "basic",
                    environ={},
                    settings=[
                        f"release={release}",
                        f"os.distribution={distribution}",
                        f"os.version={'22' if distribution == 'ubuntu' else '15.4' if old else '15.6'}",
                        f"kubernetes.distribution={kubernetes}",
                        "kubernetes.versions=all",
                        mirror_setting(registry),
                    ],
                )
                names = upstream_images(environment)
                base = "ubuntu" if distribution == "ubuntu" else "opensuse"
                references[names["base"]] = (f"{base}{old}", "")
                references[names["agent"]] = ("agent", "")
                references[names["kairos_provider"]] = (f"provider{old}", kubernetes)
                references[names["tools"]] = ("debian", "")
                if "third_party" in names:
                    references[names["third_party"]] = ("third-party", "")
    if broken:
        references[f"{registry}/broken/no-zstd:1"] = ("no-zstd", "")
    _bake(
        {
            reference: {"target": stage, "args": {"PROVIDER": kubernetes} if kubernetes else {}}
            for reference, (stage, kubernetes) in references.items()
        },
        debian_image,
        kernel_image,
    )
    other: dict[str, dict[str, object]] = {
        f"{registry}/broken/arm64:1": {"target": "other-architecture", "platforms": ["linux/arm64"]}
    }
    if broken:
        _bake(other, debian_image, kernel_image)
    # The builds are to pull them, not to find them in the engine.
    run(["docker", "image", "rm", *sorted(references)])
    return set(references)


def _bake(targets: dict[str, dict[str, object]], debian_image: str, kernel_image: str) -> None:
    named = {f"image-{number}": (reference, target) for number, (reference, target) in enumerate(targets.items())}
    file = {
        "target": {
            name: {
                "context": str(FOLDER),
                **target,
                "args": {
                    "DEBIAN_IMAGE": debian_image,
                    "KERNEL_IMAGE": kernel_image,
                    **target.get("args", {}),  # type: ignore[dict-item]
                },
                "tags": [reference],
                "output": ["type=docker"],
            }
            for name, (reference, target) in named.items()
        }
    }
    run(
        ["docker", "buildx", "bake", "--progress", "plain", "--file", "-", *named],
        stdin=json.dumps(file),
        env={"BUILDX_NO_DEFAULT_ATTESTATIONS": "1"},
    )
    # One after the other: pushed at once, one may name a shared layer that another has not yet finished.
    for reference in targets:
        run(["docker", "push", "--quiet", reference])
