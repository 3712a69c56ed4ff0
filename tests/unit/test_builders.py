"""Builders: what the file may say, the calls that come of it, what is too old, and which one gets which work."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from edgebuild import builders, preflight
from edgebuild.builders import Builder, cache_sets, create_argv, features, read_inspect, too_old
from edgebuild.builderset import AnyBuilder, Builders
from edgebuild.config import load_environment
from edgebuild.errors import BuildError, InputError, ToolError
from edgebuild.placement import Group, Place, place, ranked
from edgebuild.pool import BuilderLost, Pool

ROOT = Path("/srv/edge")
TLS = {"ca": "pki/ca.pem", "cert": "pki/cert.pem", "key": "/etc/pki/key.pem", "server_name": "b1"}
KUBERNETES: dict[str, Any] = {
    "driver": "kubernetes",
    "namespace": "edge-build",
    "replicas": 4,
    "loadbalance": "random",
    "requests": {"cpu": "4", "memory": "8Gi"},
    "limits": {"memory": "16Gi"},
    "nodeselector": {"kubernetes.io/arch": "amd64", "disk": "fast"},
    "image": "moby/buildkit:v0.32.2",
    "storage": "200Gi",
    "timeout_seconds": 300,
}


def builder(name: str = "b1", **settings: Any) -> Builder:
    adapter: TypeAdapter[AnyBuilder] = TypeAdapter(AnyBuilder)
    return Builder(name, adapter.validate_python({"driver": "docker", **settings}), ROOT)


def test_a_context_of_the_users_is_used_as_it_is() -> None:
    own = builder(endpoint="big")
    assert (own.known_as, own.docker, create_argv(own)) == ("big", ("docker", "--context", "big"), [])
    assert builder().is_here
    assert builders.inspect_argv(builder()) == ["docker", "buildx", "inspect"]  # whatever context is the current one
    assert builders.inspect_argv(own) == ["docker", "--context", "big", "buildx", "inspect", "big"]
    assert builder().docker == ("docker",)


def test_an_address_becomes_a_context() -> None:
    made = builder(endpoint="ssh://user@big")
    description = ["--description", "b1 of edge"]
    assert create_argv(made) == [
        *["docker", "context", "create", made.known_as, *description, "--docker", "host=ssh://user@big"]
    ]
    assert made.known_as.startswith("edgebuild-b1-")
    assert not made.is_here


def test_remote_with_certificates() -> None:
    made = builder(driver="remote", endpoint="tcp://b1:1234", tls=TLS)
    assert create_argv(made) == [
        *["docker", "buildx", "create", "--name", made.known_as, "--driver", "remote"],
        *["--driver-opt", "cacert=/srv/edge/pki/ca.pem", "--driver-opt", "cert=/srv/edge/pki/cert.pem"],
        *["--driver-opt", "key=/etc/pki/key.pem", "--driver-opt", "servername=b1", "tcp://b1:1234"],
    ]


def test_kubernetes_with_all_its_options() -> None:
    made = builder(**KUBERNETES)
    argv = create_argv(made)
    assert argv[:7] == ["docker", "buildx", "create", "--name", made.known_as, "--driver", "kubernetes"]
    assert argv[7::2] == ["--driver-opt"] * 10
    assert argv[8::2] == [
        *["namespace=edge-build", "replicas=4", "loadbalance=random", "image=moby/buildkit:v0.32.2"],
        *["requests.cpu=4", "requests.memory=8Gi", "limits.memory=16Gi"],
        *["persistent-volume-claim.requests.storage=200Gi", "timeout=300s"],
        '"nodeselector=kubernetes.io/arch=amd64,disk=fast"',
    ]


def test_another_address_is_another_builder_and_the_old_one_goes_with_it() -> None:
    old, new = builder(endpoint="tcp://a:1"), builder(endpoint="tcp://b:1")
    assert old.known_as != new.known_as
    assert old.known_as == builder(endpoint="tcp://a:1", jobs=3).known_as
    listed = f"NAME/NODE DRIVER\n{new.family}000000* remote\n \\_ {new.family}0000000 x\nmine docker\n"
    assert builders.old_ones(new, f"default\n{old.known_as}\nmine\n", listed) == [
        ["docker", "context", "rm", "--force", old.known_as],
        ["docker", "buildx", "rm", "--force", f"{new.family}000000"],
    ]
    assert builders.old_ones(Builder("b", new.settings, ROOT), f"{old.known_as}\n", listed) == []


@pytest.mark.parametrize(
    ("settings", "versions", "says"),
    [
        (KUBERNETES, {"buildx": "v0.35.1"}, ["loadbalance random needs buildx 0.36, and there is 0.35"]),
        (KUBERNETES, {"buildx": "0.13.1+ds1"}, ["timeout_seconds", "storage", "loadbalance random"]),
        (KUBERNETES, {"buildx": "0.36.0"}, []),
        ({**KUBERNETES, "loadbalance": "sticky"}, {"buildx": "0.34.0"}, []),
        ({"driver": "remote", "endpoint": "tcp://b:1"}, {"buildx": "0.7.1"}, ["driver remote needs buildx 0.8"]),
        ({}, {"BuildKit": "v0.10.6"}, ["images with fixed dates", "a cache in a registry"]),
        ({}, {"BuildKit": "v0.11.0"}, ["a cache in a registry (image-manifest, ignore-error) needs BuildKit 0.12"]),
        ({}, {"BuildKit": "v0.0.0+unknown", "buildx": ""}, []),
    ],
)
def test_what_is_too_old_is_named(settings: dict[str, Any], versions: dict[str, str], says: list[str]) -> None:
    found = too_old(features(builder(**settings).settings, cached=True), versions)
    assert len(found) == len(says)
    assert all(line.startswith(start) for line, start in zip(found, says, strict=True)), found


REMOTE_RUNS = """Name:          r1
Driver:        remote
Nodes:
Name:             r10
Endpoint:         tcp://127.0.0.1:1234
Status:           running
BuildKit version: v0.13.2
Platforms:        linux/amd64*, linux/386
Labels:
 org.mobyproject.buildkit.worker.hostname: vm
"""


def judged(text: str, *, buildx: str = "0.36.0", engine: str = "", **settings: Any) -> tuple[str, str, str]:
    told = read_inspect(text)
    check = preflight.judge(builder(**settings), told, engine=engine, buildx=buildx, seconds=0.04, cached=True)
    return check.status, check.detail, check.remedy


def test_a_sound_builder() -> None:
    asked = {"driver": "remote", "endpoint": "tcp://b1:1234"}
    says = "BuildKit v0.13.2, linux/amd64, 1 at a time, answers in 0.0 s"
    assert judged(REMOTE_RUNS, **asked) == ("ok", says, "")


def test_a_builder_of_the_wrong_platform() -> None:
    status, detail, remedy = judged(REMOTE_RUNS, driver="remote", endpoint="tcp://b1:1234", platforms=["linux/arm64"])
    assert (status, detail) == ("error", "does not offer linux/arm64, but linux/386, linux/amd64")
    assert "builders.b1.platforms" in remedy


def test_builders_that_are_too_old() -> None:
    assert judged(REMOTE_RUNS.replace("v0.13.2", "v0.10.6"))[:2] == (
        "error",
        "images with fixed dates (SOURCE_DATE_EPOCH) needs BuildKit 0.11, and there is 0.10; "
        "a cache in a registry (image-manifest, ignore-error) needs BuildKit 0.12, and there is 0.10",
    )
    assert judged(REMOTE_RUNS, engine="20.10.5")[:2] == (
        "error",
        "Docker Engine 20.10.5 is too old; 23.0 or newer is needed",
    )
    assert (
        judged(REMOTE_RUNS, engine="26.1.5", buildx="0.12.0")[1]
        == "buildx 0.12.0 is too old; 0.13 or newer is needed"
    )


def test_of_pods_what_all_offer_counts_and_the_oldest() -> None:
    second = REMOTE_RUNS.replace("v0.13.2", "v0.9.1").replace("linux/amd64*, linux/386", "linux/amd64")
    told = read_inspect(REMOTE_RUNS + "\n" + second)
    assert (told.buildkit, told.platforms, told.error) == ("v0.9.1", frozenset({"linux/amd64"}), "")
    assert (
        read_inspect(REMOTE_RUNS + second.replace("running", "inactive")).error
        == "nothing answers there, or not to us: inactive"
    )


def test_a_builder_that_says_why_not() -> None:
    says = "Cannot connect to the Docker daemon at tcp://10.0.0.1:2375. Is the docker daemon running?"
    text = f"Name:   b1\nDriver: \nError:  {says}\n"
    remedy = f"try: docker --context {builder(endpoint='tcp://b:1').known_as} version"
    assert judged(text, endpoint="tcp://b:1") == ("error", says, remedy)
    assert read_inspect("").error == "it has no node that runs"


def test_each_target_has_a_cache_of_its_own_and_begins_with_the_base() -> None:
    sets = cache_sets("r.example/x", "demo", {"k3s-1": "provider-image"}, platform="linux/arm64", exports=True)
    own, base = "r.example/x/cache/provider:demo-k3s-1-arm64", "r.example/x/cache/base:demo-base-image-arm64"
    assert sets == [
        f"k3s-1.cache-from=type=registry,ref={own}",
        f"k3s-1.cache-from=type=registry,ref={base}",
        f"k3s-1.cache-to=type=registry,ref={own},mode=max,image-manifest=true,oci-mediatypes=true,ignore-error=true",
    ]
    only = cache_sets("r", "demo", {"base-image": "base-image"}, platform="linux/amd64", exports=False)
    assert only == ["base-image.cache-from=type=registry,ref=r/cache/base:demo-base-image-amd64"]
    [long, _] = cache_sets("r", "e" * 63, {"k" * 63: "boot-tree"}, platform="linux/amd64", exports=False)
    assert len(long.rpartition(":")[2]) <= 128


def problems(root: Path, text: str) -> str:
    with pytest.raises(InputError) as error:
        load_environment(root, "demo", environ={}, settings=[f"builders={text}"])
    return str(error.value)


def test_wrong_builders_are_named_all_at_once(root: Path) -> None:
    said = problems(
        root,
        "{a: {driver: dockr}, b: {driver: docker, tls: {}}, c: {driver: remote, endpoint: 'b1:1234'},"
        " d: {driver: kubernetes, namespace: x, replicas: 0}, E: {driver: docker}, f: {driver: docker, jobs: 0},"
        " g: {driver: docker, platforms: []}, h: {driver: docker, platforms: [amd64]}}",
    )
    assert "8 problems" in said
    for line in (
        "builders.a.driver: expected docker, remote or kubernetes",
        "builders.b.tls: no such key",
        "builders.c.endpoint: expected an address such as tcp://host:1234",
        "builders.d.replicas: expected greater than or equal to 1",
        "builders.E",
        "builders.f.jobs: expected greater than or equal to 1",
        "builders.g.platforms",
        "builders.h.platforms.0: expected a platform such as linux/amd64",
    ):
        assert line in said, said


def test_builders_must_have_one_of_the_architecture(root: Path) -> None:
    said = problems(root, "{a: {driver: docker, platforms: [linux/arm64]}}")
    assert "builders: none is for linux/amd64, which os.arch asks for" in said


def test_builders_load_with_their_defaults(root: Path) -> None:
    loaded = load_environment(root, "demo", environ={}, settings=["builders={a: {driver: docker}}"])
    adapter: TypeAdapter[Builders] = TypeAdapter(Builders)
    assert loaded.builders == adapter.validate_python({"a": {"driver": "docker", "endpoint": "default", "jobs": 1}})


AMD, ARM = frozenset({"linux/amd64"}), frozenset({"linux/arm64"})
PLACES = [Place("a", AMD, 2), Place("b", AMD, 1), Place("c", AMD, 1), Place("arm", ARM, 8)]


def group(number: int, base: str = "sha256:1", platform: str = "linux/amd64") -> Group:
    return Group((f"t{number}",), platform, base)


@given(st.text(), st.sets(st.sampled_from("abcdefgh"), min_size=2))
def test_a_builder_that_goes_moves_only_its_own_bases(base: str, names: set[str]) -> None:
    places = [Place(name, AMD, 1) for name in sorted(names)]
    order = ranked(places, group(1, base))
    for gone in places:
        assert ranked([each for each in places if each != gone], group(1, base)) == [
            each for each in order if each != gone
        ]


def test_bases_spread_over_builders() -> None:
    first = {ranked(PLACES, group(1, f"sha256:{number}"))[0].name for number in range(50)}
    assert first == {"a", "b", "c"}


def test_the_warm_builder_is_filled_first_and_then_the_others_and_never_another_platform() -> None:
    order = [each.name for each in ranked(PLACES, group(1))]
    busy: dict[str, int] = {}
    chosen = []
    while found := place([group(1)], PLACES, busy):
        chosen.append(found[1].name)
        busy[chosen[-1]] = busy.get(chosen[-1], 0) + 1
    jobs = {each.name: each.jobs for each in PLACES}
    assert chosen == [name for name in order for _ in range(jobs[name])]
    assert "arm" not in chosen
    assert place([group(1), group(2, platform="linux/arm64")], PLACES, busy) == (
        group(2, platform="linux/arm64"),
        PLACES[3],
    )


def test_work_of_a_lost_builder_is_done_by_another_of_its_platform() -> None:
    said: list[str] = []

    def build(name: str, work: Group) -> str:
        if name == "a":
            raise BuilderLost("connection reset")
        return f"{work.targets[0]} by {name}"

    work = [group(number) for number in range(6)]
    results = Pool(PLACES, build, said.append).work_through(work)
    assert {each.targets for each, _, _ in results} == {each.targets for each in work}
    assert {name for _, name, _ in results} == {"b", "c"}
    assert said == ["builder a is left out, its work goes to another: connection reset"]


def test_none_left_names_all_and_why() -> None:
    def build(name: str, _: Group) -> str:
        raise BuilderLost(f"{name} is gone")

    with pytest.raises(ToolError) as error:
        Pool(PLACES, build, lambda _: None, {"c": "too old"}).work_through([group(1)])
    assert str(error.value).splitlines()[:4] == [
        "no builder is left for linux/amd64",
        "  a: a is gone",
        "  b: b is gone",
        "  c: too old",
    ]
    assert error.value.exit_code == 3


def test_what_fails_for_another_reason_is_not_tried_again() -> None:
    tried: list[str] = []

    def build(name: str, _: Group) -> str:
        tried.append(name)
        raise BuildError("a step failed")

    with pytest.raises(BuildError, match="a step failed"):
        Pool(PLACES, build, lambda _: None).work_through([group(1)])
    assert len(tried) == 1


def test_no_builder_has_more_than_its_jobs() -> None:
    import threading

    lock, now, most = threading.Lock(), dict[str, int](), dict[str, int]()
    full = threading.Barrier(4)  # a: 2, b: 1, c: 1; all of them must be at work at once

    def build(name: str, _: Group) -> str:
        with lock:
            now[name] = now.get(name, 0) + 1
            most[name] = max(most.get(name, 0), now[name])
        full.wait(30)
        with lock:
            now[name] -= 1
        return name

    Pool(PLACES, build, lambda _: None).work_through([group(number) for number in range(4)])
    assert most == {"a": 2, "b": 1, "c": 1}
