"""What is pulled, and what may be asked for without internet: refused before, and looked for afterwards."""

import json
import re
from pathlib import Path

import pytest

from edgebuild.config import load_environment
from edgebuild.errors import InputError, VerificationError
from edgebuild.imagetree import INDEX, MANIFEST, Manifest, image_tree
from edgebuild.inputs import Inputs
from edgebuild.lock import STAGES, Lock, lockable_images
from edgebuild.model import Environment
from edgebuild.offline import check_offline, is_below, prove, without_network
from edgebuild.packages import package_distributions
from edgebuild.plan import make_plan
from edgebuild.progress import BuildState
from edgebuild.pulls import Pull, canonical, kubernetes_tags, merged, mirror_lines, pulled_images
from edgebuild.render import render_dockerfile
from edgebuild.run import run
from edgebuild.stages import instructions
from edgebuild.sums import digest_of

DIGEST = "sha256:" + "a" * 64
MIRRORS = 'registries.mirrors={"docker.io": "registry.example.com/docker.io", "us-docker.pkg.dev": "registry.example.com/p"}'
ARCHIVES = (
    'package_mirrors={"debian": "http://packages.example.com/debian", "ubuntu": "http://packages.example.com/u"}'
)


def environment_of(root: Path, *settings: str) -> Environment:
    return load_environment(root, "basic", environ={}, settings=settings)


def rendered(root: Path, environment: Environment, lock: Lock | None = None, own: str = "") -> str:
    source = (root / "Dockerfile.j2").read_text(encoding="utf-8") + own
    return render_dockerfile(make_plan("basic", environment), environment, Inputs(), source, lock)


def locked(environment: Environment) -> Lock:
    images = dict.fromkeys(lockable_images(environment).values(), DIGEST)
    return Lock(made_for={}, images=images, base="", packages={stage: {} for stage in STAGES})


def pulls_of(root: Path, environment: Environment, lock: Lock | None, own: str = "") -> list[Pull]:
    return pulled_images("basic", environment, lock, rendered(root, environment, lock, own))


def test_what_is_pulled_is_what_the_dockerfile_names(root: Path) -> None:
    environment = environment_of(root, MIRRORS)
    pulls = pulls_of(root, environment, locked(environment), "COPY --from=busybox:1 /bin/busybox /\n")
    sources = {pull.source: pull for pull in pulls}
    assert (
        sources["docker.io/library/debian:12-slim"].asked == "registry.example.com/docker.io/library/debian:12-slim"
    )
    assert {pull.digest for pull in pulls if pull.source != "docker.io/library/busybox:1"} == {DIGEST}
    assert sources["docker.io/library/busybox:1"].digest == ""
    assert len(pulls) == len(lockable_images(environment)) + 1


def test_several_environments_share_pulls() -> None:
    one = Pull("a/b:1", "a/b:1", "", ("linux/amd64",), ("x",))
    other = Pull("a/b:1", "a/b:1", "", ("linux/arm64",), ("y",))
    [both] = merged([one, other])
    assert both.platforms == ("linux/amd64", "linux/arm64")
    assert both.environments == ("x", "y")
    assert canonical("debian:12") == "docker.io/library/debian:12"
    assert canonical("registry.example.com/x:1") == "registry.example.com/x:1"
    assert mirror_lines({"quay.io": "r/quay.io"}) == "registries:\n  mirrors:\n    quay.io: r/quay.io\n"


def test_kubernetes_packages_of_the_chosen_versions(root: Path) -> None:
    environment = environment_of(root, "kubernetes.versions=[1.33.6]")
    tags = ["repository.yaml", "tree.tar.zst", "k3s-k8s-1.33.6-k3s1", "k3s-k8s-1.33.6-k3s12", "rke2-k8s-1.33.6-k3s1"]
    assert kubernetes_tags(environment, tags) == ["k3s-k8s-1.33.6-k3s1", "repository.yaml", "tree.tar.zst"]


def test_everything_that_would_ask_elsewhere_is_named_at_once(root: Path) -> None:
    environment = environment_of(root)
    own = "ADD --chmod=644 https://example.com/file /x\n"
    text = "# syntax=docker/dockerfile:1\n" + rendered(root, environment, own=own)
    with pytest.raises(InputError) as caught:
        check_offline("basic", environment, pulls_of(root, environment, None), text)
    for said in (
        "docker.io/library/debian:12-slim: registries.mirrors has no mirror for it",
        "docker.io/library/debian:12-slim: no digest pins it",
        "luet-repo-amd: the Kubernetes packages",
        "package_mirrors.debian: is not set",
        "package_mirrors.ubuntu: is not set",
        "syntax=docker/dockerfile:1",
        "ADD https://example.com/file",
    ):
        assert said in caught.value.message
    assert "./inv lock --env basic" in caught.value.hint
    assert "./inv mirror.import" in caught.value.hint


def test_a_build_behind_mirrors_is_not_refused(root: Path) -> None:
    environment = environment_of(root, MIRRORS, ARCHIVES, "offline=true")
    lock = locked(environment)
    check_offline("basic", environment, pulls_of(root, environment, lock), rendered(root, environment, lock))


def test_which_archives_are_asked(root: Path) -> None:
    assert package_distributions(environment_of(root)) == ["debian", "ubuntu"]
    demo = load_environment(root, "demo", environ={}, settings=[])
    assert package_distributions(demo) == ["debian"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("RUN apt-get update", "RUN --network=none apt-get update"),
        ("RUN --network=default curl x", "RUN --network=default curl x"),
        ("RUN --mount=type=tmpfs,target=/x true", "RUN --network=none --mount=type=tmpfs,target=/x true"),
        ("COPY a /", "COPY a /"),
        ("RUN <<'EOF'\nRUN --network=default\nEOF", "RUN --network=none <<'EOF'\nRUN --network=default\nEOF"),
        ("RUN a \\\n  b", "RUN --network=none a \\\n  b"),
    ],
)
def test_own_steps_get_no_network(line: str, expected: str) -> None:
    assert without_network(line) == expected


def test_what_buildkit_asked_for_is_looked_at() -> None:
    names = (
        "[internal] load metadata for registry.example.com/p/a:1@" + DIGEST,
        "[internal] load metadata for docker.io/library/busybox:1",
        "[stage-0 1/2] ADD --chmod=644 https://example.com/x /x",
        "resolve image config for docker-image://docker.io/docker/dockerfile:1",
        "[agent 1/1] FROM registry.example.com/p/b:1@" + DIGEST,
        "[internal] load build definition from Dockerfile",
        "[customized 2/3] RUN echo https://example.com",
    )
    state = BuildState(lambda text: text)
    list(state.update({"vertexes": [{"digest": digest_of(name.encode()), "name": name} for name in names]}))
    mirrors = {"x": "registry.example.com/p"}
    with pytest.raises(VerificationError) as caught:
        prove(state.asked, mirrors)
    assert caught.value.message.splitlines()[1:] == [
        "  docker.io/docker/dockerfile:1",
        "  docker.io/library/busybox:1",
        "  https://example.com/x",
    ]
    prove([each for each in state.asked if is_below(each, mirrors)], mirrors)


def test_the_proof_is_not_fooled_by_a_name_that_begins_alike() -> None:
    assert not is_below("registry.example.com/pirate/a:1", {"x": "registry.example.com/p"})


SOURCES = {
    "debian": {
        "deb http://a.example.com/debian bookworm main": "deb http://m.example.com/d bookworm main",
        "deb [trusted=yes] https://a.example.com/x/debian-security/ bookworm-security main": (
            "deb [trusted=yes] http://m.example.com/d-security bookworm-security main"
        ),
        "URIs: http://a.example.com/debian-security": "URIs: http://m.example.com/d-security",
        "URIs: http://a.example.com/debian http://b.example.com/debian": (
            "URIs: http://m.example.com/d http://m.example.com/d"
        ),
        "Signed-By: /usr/share/keyrings/a.gpg": "Signed-By: /usr/share/keyrings/a.gpg",
    },
    "opensuse-leap": {
        "baseurl=http://a.example.com/distribution/leap/$releasever/repo/oss/": (
            "baseurl=http://m.example.com/o/distribution/leap/$releasever/repo/oss/"
        ),
        "mirrorlist=http://a.example.com/list": "",
        "baseurl=dir:///srv/repo": "baseurl=dir:///srv/repo",
    },
}


@pytest.mark.process
@pytest.mark.parametrize("distribution", SOURCES)
def test_sources_name_the_package_mirror(root: Path, distribution: str) -> None:
    """The rendered sed, on sources in every form."""
    mirrors = {"debian": "http://m.example.com/d", "opensuse-leap": "http://m.example.com/o/"}
    environment = load_environment(root, "advanced", environ={}, settings=[f"package_mirrors={json.dumps(mirrors)}"])
    script = rendered(root, environment).partition(f"EOF' /{distribution}\n")[2].partition("\nEOF")[0]
    [expression] = re.findall(r"sed -E '([^']*)'", script)
    for before, after in SOURCES[distribution].items():
        assert run(["sed", "-E", expression], stdin=f"{before}\n").stdout.rstrip("\n") == after


@pytest.mark.parametrize("name", ["basic", "advanced"])
def test_steps_with_a_network_ask_a_mirror(root: Path, name: str) -> None:
    mirrors = dict.fromkeys(("debian", "ubuntu", "opensuse-leap"), "http://packages.example.com/x")
    settings = [MIRRORS, f"package_mirrors={json.dumps(mirrors)}", "offline=true"]
    environment = load_environment(root, name, environ={}, settings=settings)
    text = rendered(root, environment, own="RUN apt-get install -y nginx\n")
    steps = [each for each in instructions(text) if each.startswith("RUN ") and "--network=none" not in each]
    assert len(steps) > 4
    for step in steps:
        assert ". /tmp/package-mirror && " in step or "luet repo add spectro --type docker --url registry.ex" in step


@pytest.mark.parametrize(
    "address", ["ftp://x/y", "http://x/y z", "http://x/y'z", "x/y", "http://u:p@x/y", "http://x/#"]
)
def test_an_address_that_is_no_package_mirror(root: Path, address: str) -> None:
    with pytest.raises(InputError, match="expected the address of a package archive"):
        environment_of(root, f"package_mirrors={json.dumps({'debian': address})}")


def manifest(content: object, kind: str) -> Manifest:
    data = json.dumps(content).encode()
    return Manifest(digest_of(data), kind, data)


def test_an_image_tree_holds_one_platform_of_an_index() -> None:
    part = {"digest": DIGEST, "size": 3, "mediaType": "x"}
    image = manifest({"config": part, "layers": [part]}, MANIFEST)
    entry = {"digest": image.digest, "size": len(image.data), "mediaType": MANIFEST}
    other = {"digest": DIGEST, "size": 1, "mediaType": MANIFEST, "platform": {"os": "linux", "architecture": "arm64"}}
    here = {**entry, "platform": {"os": "linux", "architecture": "amd64"}}
    index = manifest({"manifests": [here, other]}, INDEX)
    known = {each.digest: each for each in (image, index)}
    tree = image_tree(known.__getitem__, index.digest, ["linux/amd64"], "x")
    assert [each.digest for each in tree.manifests] == [image.digest, index.digest]
    assert [each.digest for each in tree.blobs] == [DIGEST]
    assert not tree.whole
    with pytest.raises(VerificationError, match="none for linux/s390x"):
        image_tree(known.__getitem__, index.digest, ["linux/s390x"], "x")


@pytest.mark.parametrize("content", [[], {"layers": 1}, {"config": {}, "layers": []}, {"manifests": [1]}, "x"])
def test_what_is_no_image_is_no_traceback(content: object) -> None:
    bad = manifest(content, MANIFEST)
    with pytest.raises(VerificationError):
        image_tree(lambda _: bad, bad.digest, ["linux/amd64"], "x")
