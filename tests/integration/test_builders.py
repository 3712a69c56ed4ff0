"""Builds spread over real engines: one dies, one is slow, one cannot be used; and BuildKit with certificates."""

import json
import os
import re
import signal
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from edgebuild import preflight
from edgebuild.builders import Builder
from edgebuild.builderset import AnyBuilder
from edgebuild.errors import ToolError
from edgebuild.images import Built
from edgebuild.run import run, running
from tests.builderlab import (
    CONTAINERD,
    REGISTRY_PORTS,
    Engine,
    Lab,
    Relay,
    arm64_emulation,
    buildkit_of,
    busybox,
    docker_builders,
    engine_at,
    engines,
    make_lab,
    own_docker_config,
)
from tests.conftest import ROOT, Workspace, copy_repository
from tests.registry_server import registry_server


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, engine: object) -> Iterator[list[Engine]]:
    """Two engines as they come, and one that keeps its images as containerd does."""
    with own_docker_config(tmp_path_factory.mktemp("docker")), engines(None, None, CONTAINERD) as started:
        yield started


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return busybox(tmp_path_factory.mktemp("busybox"))


@pytest.fixture
def lab(tmp_path: Path, program: Path) -> Lab:
    return make_lab(tmp_path / "lab", program)


def forget(built: Built) -> None:
    run(["docker", "image", "rm", "--force", *{each.digest for each in built.artifacts}])


def shown(digest: str, file: str) -> str:
    """A file of an image in the engine here."""
    argv = ["docker", "run", "--rm", "--network", "none", digest, "/busybox", "cat", file]
    return run(argv).stdout


def logs(lab: Lab, builder: str) -> str:
    found = sorted((lab.root / "build/demo/logs").glob(f"build-{builder}-*"))
    return "".join(path.read_text() for path in found)


def test_a_build_is_spread_and_all_of_it_comes_here(lab: Lab, three: list[Engine]) -> None:
    session, said = lab.session(docker_builders(three), 6)
    built = lab.build(session, "echo it was built > /made")
    assert "work by builder: a 2, b 2, c 2" in said, "\n".join(said)
    assert len(built.artifacts) == 6
    assert not built.failed
    assert {shown(each.digest, "/made") for each in built.artifacts} == {"it was built\n"}
    forget(built)


def test_the_work_of_a_killed_builder_is_finished_by_another(lab: Lab, three: list[Engine]) -> None:
    with engines(None, names="k") as [mortal]:
        session, said = lab.session(docker_builders([mortal, three[0]]), 4)

        def kill() -> None:
            while "the-step-runs\n" not in logs(lab, mortal.name):
                time.sleep(0.05)  # another process writes the log
            mortal.kill()

        threading.Thread(target=kill, daemon=True).start()
        built = lab.build(session, "echo the-step-runs; /busybox sleep 3")
    assert "builder k is left out, its work goes to another: the engine went away during the build" in said
    assert "work by builder: a 4" in said
    assert len(built.artifacts) == 4
    forget(built)


def test_a_step_that_fails_is_not_tried_elsewhere(lab: Lab, three: list[Engine]) -> None:
    session, said = lab.session(docker_builders(three), 3)
    built = lab.build(session, "echo once; exit 7")
    assert len(built.failed) == 3
    assert not any("left out" in line for line in said)
    for name in "abc":
        assert logs(lab, name).count("once\n") == 1


def test_a_slow_builder_gets_what_it_can_do(lab: Lab, three: list[Engine]) -> None:
    """All that it says is held back until the other has built the rest."""
    slow, fast = three[:2]
    relay = Relay(engine_at(slow.address))
    builders = docker_builders([slow, fast])
    builders[slow.name]["endpoint"] = f"tcp://{relay.address}"
    session, said = lab.session(builders, 4, "limits.jobs=1")

    def hold() -> None:
        while "building " not in "".join(said):
            time.sleep(0.02)  # the build begins in another thread
        relay.gate.clear()
        while sum(line.startswith("building ") and " on b;" in line for line in said) < 3:
            time.sleep(0.02)
        relay.gate.set()

    threading.Thread(target=hold, daemon=True).start()
    built = lab.build(session, "echo slow > /made")
    relay.close()
    assert "work by builder: a 1, b 3" in said
    forget(built)


def older(engine: Engine) -> Relay:
    """The engine, but it says that it is of a version of long ago."""
    version = engine.docker("version", "--format", "{{.Server.Version}}").strip()
    old = f"20.10.5+{'x' * len(version)}"[: len(version)]  # of the same length, for HTTP's sake
    return Relay(
        engine_at(engine.address),
        change=lambda data: data.replace(f'"Version":"{version}"'.encode(), f'"Version":"{old}"'.encode()),
    )


def test_builders_that_cannot_be_used(tmp_path: Path, three: list[Engine]) -> None:
    workspace = copy_repository(tmp_path / "repository")
    old = older(three[1])
    builders = docker_builders(three[:1])
    builders["away"] = {"driver": "docker", "endpoint": f"tcp://{three[0].address}:1"}
    builders["other"] = {"driver": "docker", "endpoint": three[2].host, "platforms": ["linux/sparc64"]}
    builders["old"] = {"driver": "docker", "endpoint": f"tcp://{old.address}"}
    asked = ["--env", "demo", "--set", f"builders={json.dumps(builders)}"]
    made = workspace.call("builder.create", *asked)
    assert len(made.stdout.splitlines()) == 4
    assert "there already" in workspace.call("builder.create", *asked).stdout
    checked = workspace.call("builder.check", *asked, check=False)
    assert checked.returncode == 3, checked.stderr
    lines = {line.split()[1]: line for line in checked.stdout.splitlines()}
    assert lines["a"].startswith("ok ")
    assert re.search(r"engine \d+.*, linux/amd64, 1 at a time, answers in \d", lines["a"])
    assert re.search(
        r"^error .*Cannot connect to the Docker daemon.* -> try: docker --context \S+ version", lines["away"]
    )
    assert "does not offer linux/sparc64, but " in lines["other"]
    assert "is too old; 23.0 or newer is needed" in lines["old"]
    assert "3 of 4 builders cannot be used: away, other, old" in checked.stderr
    refused_build(workspace, {name: builders[name] for name in ("away", "old")})
    removed = workspace.call("builder.remove", *asked).stdout
    assert removed.count("removed") == 4
    known = run(["docker", "context", "ls"]).stdout
    assert not [name for name in made.stdout.split() if name.startswith("edgebuild-") and name in known]
    old.close()


def refused_build(workspace: Workspace, builders: object) -> None:
    """No builder that can be used: all are named, and nothing is built."""
    setting = f"builders={json.dumps(builders)}"
    result = workspace.call("base-image", "--again", "--env", "demo", "--set", setting, check=False)
    assert result.returncode == 3, result.stderr
    assert "no builder is left for linux/amd64\n  away: Cannot connect" in result.stderr
    assert "  old: Docker Engine 20.10." in result.stderr
    assert "Traceback" not in result.stderr


def test_none_left_in_the_middle(lab: Lab, three: list[Engine]) -> None:
    """A builder that drops every connection once it has work."""
    relay = Relay(engine_at(three[0].address))
    builders = docker_builders(three[:1])
    builders["a"]["endpoint"] = f"tcp://{relay.address}"
    session, said = lab.session(builders, 2)

    def cut(data: bytes) -> bytes:
        if any(line.startswith("building ") for line in said):
            raise OSError("cut")
        return data

    relay.change = cut
    with pytest.raises(ToolError, match="no builder is left for linux/amd64\n  a: ") as error:
        lab.build(session, "true")
    assert error.value.exit_code == 3
    relay.close()


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificates of docs/scale.md, by its own commands."""
    folder = tmp_path_factory.mktemp("certificates")
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs/scale.md").read_text(), re.MULTILINE | re.DOTALL)
    [commands] = [each for each in blocks if "openssl x509" in each]
    run(["sh", "-eu", "-c", commands], cwd=folder)
    return folder / "pki"


@pytest.fixture
def buildkitd(three: list[Engine], pki: Path) -> Iterator[str]:
    """A real BuildKit (that of the engine with containerd's store) behind TLS that asks who comes."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pki / "b1.pem", pki / "b1-key.pem")
    tls.load_verify_locations(pki / "ca.pem")
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.set_alpn_protocols(["h2"])
    relay = Relay(buildkit_of(three[2]), tls=tls)
    yield relay.address
    relay.close()


def remote(address: str, pki: Path, who: str = "client") -> dict[str, object]:
    tls = {"ca": f"{pki}/ca.pem", "cert": f"{pki}/{who}.pem", "key": f"{pki}/{who}-key.pem", "server_name": "b1"}
    return {"driver": "remote", "endpoint": f"tcp://{address}", "tls": tls}


def test_a_buildkitd_that_asks_for_certificates(lab: Lab, buildkitd: str, pki: Path, three: list[Engine]) -> None:
    """And one that nobody with a certificate of another kind gets into; the cache in a registry."""
    with registry_server(lab.root / "registry") as registry:
        host, port = registry.split(":")
        seen = Relay(
            engine_at(host, int(port)), listen=three[2].gateway, ports=REGISTRY_PORTS
        )  # as the engine sees it
        builders = {"sound": remote(buildkitd, pki), "stranger": remote(buildkitd, pki, "b2")}
        cache = f"cache.registry={seen.address}/edge"
        session, said = lab.session(builders, 2, cache)
        built = lab.build(session, "echo far away > /made")
        [refused] = [line for line in said if line.startswith("builder stranger is left out")]
        assert "nothing answers there, or not to us" in refused
        assert "are the certificates each other's?" in refused
        assert "work by builder: sound 2" in said
        assert {shown(each.digest, "/made") for each in built.artifacts} == {"far away\n"}
        forget(built)
        with urllib.request.urlopen(f"http://{registry}/v2/edge/cache/provider/tags/list") as answer:
            tags = json.load(answer)["tags"]
        assert sorted(tags) == [f"demo-provider-image-1-30-{number}-amd64" for number in (0, 1)]
        three[2].docker("builder", "prune", "--all", "--force")
        again = lab.build(session, "echo far away > /made")
        steps = [line for line in logs(lab, "sound").splitlines() if "far away" in line and line.startswith("---")]
        assert [line.rpartition("--- ")[2] for line in steps][-2:] == ["cached", "cached"]
        forget(again)
        seen.close()


def test_an_engine_that_cannot_write_caches_says_so_once(lab: Lab, three: list[Engine]) -> None:
    session, said = lab.session(docker_builders(three[:1]), 4, "limits.jobs=2", "cache.registry=127.0.0.1:1/edge")
    built = lab.build(session, "true")
    note = "note: builder a reads the cache and does not write it: its engine has no containerd image store"
    assert said.count(note) == 1
    assert len(built.artifacts) == 4  # a cache that cannot be reached is no failed build
    forget(built)


def test_arm64_is_built_by_the_builder_that_has_it(tmp_path: Path, three: list[Engine]) -> None:
    """Under QEMU, registered with the kernel before that engine starts."""
    lab = make_lab(tmp_path / "lab", busybox(tmp_path, arch="arm64"))
    with arm64_emulation(tmp_path / "qemu"), engines(None, names="m") as [arm]:
        builders = docker_builders(three[:1]) | docker_builders([arm], platforms=["linux/arm64"])
        session, said = lab.session(builders, 1, "os.arch=arm64")
        built = lab.build(session, "/busybox uname -m > /made")
        assert "work by builder: m 1" in said
        [image] = [each.digest for each in built.artifacts]
        assert run(["docker", "image", "inspect", "--format", "{{.Architecture}}", image]).stdout == "arm64\n"
        assert shown(image, "/made") == "aarch64\n"
    forget(built)


NO_CLUSTER = """
apiVersion: v1
kind: Config
clusters: [{name: none, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: nobody, user: {}}]
contexts: [{name: none, context: {cluster: none, user: nobody}}]
current-context: none
"""


def test_buildx_takes_the_options_for_kubernetes(
    tmp_path: Path, three: list[Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """buildx checks them when the builder is created; it needs no cluster for that."""
    (tmp_path / "kubeconfig").write_text(NO_CLUSTER)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    adapter: TypeAdapter[AnyBuilder] = TypeAdapter(AnyBuilder)
    asked = {
        "driver": "kubernetes",
        "namespace": "edge-build",
        "replicas": 4,
        "requests": {"cpu": "4", "memory": "8Gi"},
        "limits": {"cpu": "6", "memory": "16Gi"},
        "nodeselector": {"kubernetes.io/arch": "amd64", "disk": "fast"},
        "image": "moby/buildkit:v0.32.2",
        "rootless": True,
    }
    builder = Builder("cluster", adapter.validate_python(asked), tmp_path)
    assert preflight.make_known(builder, print)
    try:
        assert not preflight.make_known(builder, print)
        shown = run(["docker", "buildx", "ls"]).stdout
        assert re.search(rf"^{builder.known_as} +kubernetes", shown, re.MULTILINE)
    finally:
        run(["docker", "buildx", "rm", "--keep-state", "--force", builder.known_as], check=False)
    with pytest.raises(ToolError, match="cannot be created: "):
        preflight.make_known(
            Builder("odd", builder.settings.model_copy(update={"loadbalance": "odd"}), tmp_path), print
        )


def test_an_interrupted_build_leaves_nothing_at_work(lab: Lab, three: list[Engine]) -> None:
    session, said = lab.session(docker_builders(three[:2]), 2)

    def interrupt() -> None:
        while not all("it-sleeps\n" in logs(lab, name) for name in "ab"):
            time.sleep(0.05)  # other processes write the logs
        os.kill(os.getpid(), signal.SIGINT)

    others = running()
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        lab.build(session, "echo it-sleeps; /busybox sleep 600")
    assert running() == others  # the engines themselves
    assert not any("left out" in line for line in said)
