"""What is unchanged is not built again; what is built says why; several environments in one run."""

import json
import re
from pathlib import Path

import pytest

from edgebuild.results import Results
from edgebuild.run import Result, run
from tests.conftest import Workspace, copy_repository

ISO = "palette-edge-installer.iso"


@pytest.fixture(scope="module")
def own(bootstrapped: Path, demo: Result, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A copy of the repository for these tests alone, in which demo was built."""
    workspace = copy_repository(tmp_path_factory.mktemp("keys"))
    workspace.call("build-all-images", "--env", "demo")
    return workspace


def digests(workspace: Workspace, environment: str = "demo") -> dict[str, str]:
    entries = json.loads(workspace.result(environment, "artifacts.json").read_text())
    return {entry["name"]: entry["digest"] for entry in entries}


def logs(workspace: Workspace, environment: str = "demo") -> list[str]:
    return sorted(path.name for path in workspace.result(environment, "logs").iterdir())


def planned(workspace: Workspace, *arguments: str) -> dict[str, list[str]]:
    found = json.loads(workspace.call("plan", "--json", *arguments).stdout)
    return {each["name"]: each["reasons"] for each in found["targets"] if "state" in each}


def test_nothing_changed_asks_nobody(own: Workspace) -> None:
    before, asked = own.result("demo", ".current").readlink(), logs(own)
    result = own.call("build-all-images", "--env", "demo")
    assert "nothing has changed" in result.stderr
    assert own.result("demo", ".current").readlink() == before
    assert logs(own) == asked
    assert not any(planned(own, "--env", "demo").values())
    assert "nothing to build" in own.call("plan", "--env", "demo").stdout


def test_another_user_data_makes_another_iso_only(own: Workspace) -> None:
    before, asked = digests(own), logs(own)
    changed = ["--env", "demo", "--set", "user.name=somebody"]
    assert planned(own, *changed)["iso"] == ["user-data changed: lines 5–6"]
    result = own.call("build-all-images", *changed)
    assert "build   iso, because user-data changed: lines 5–6" in result.stderr
    assert "cached  provider-image-1-24-6, provider-image-1-25-2, iso-image, boot-tree" in result.stderr
    assert re.search(r"about \d+ s, \d+\.\d MB by earlier runs", result.stderr)
    after = digests(own)
    assert {name for name in after if after[name] != before[name]} == {"iso"}
    assert logs(own) == asked
    own.call("verify", "--env", "demo")
    own.call("build-all-images", "--env", "demo")
    assert digests(own) == before


def test_the_reason_names_package_file_and_kernel_argument(own: Workspace) -> None:
    packages = planned(own, "--env", "demo", "--set", 'os.packages=["wireguard-tools"]')
    assert packages["provider-image-1-24-6"] == ["customized: package wireguard-tools added"]
    assert packages["iso"] == ["boot tree: customized: package wireguard-tools added"]
    menu = planned(own, "--env", "demo", "--set", 'iso.kernel_arguments=["quiet"]')
    assert menu["iso"][0].startswith("boot menu changed: line")
    assert not menu["boot-tree"]
    file = own.write("overlay/files-iso/note.txt", "a note")
    assert planned(own, "--env", "demo")["iso"] == ["overlay/files-iso/note.txt added"]
    file.unlink()
    why = own.call("plan", "--env", "demo", "--why", "boot-tree", "--set", 'os.packages=["wireguard-tools"]').stdout
    assert "stage customized" in why
    assert re.search(r"^ +\+ .*wireguard-tools", why, re.MULTILINE)
    wrong = own.call("plan", "--env", "demo", "--why", "nothing", check=False)
    assert (wrong.returncode, "no such target" in wrong.stderr) == (2, True)


def test_a_result_that_is_gone_or_changed_is_built_again(own: Workspace) -> None:
    before = digests(own)
    iso = own.result("demo", ISO).resolve()
    with iso.open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"another byte or two")
    run(["docker", "image", "rm", "--force", before["boot-tree"]])
    reasons = planned(own, "--env", "demo")
    assert reasons["boot-tree"] == ["the engine has it no more"]
    own.call("build-all-images", "--env", "demo")
    assert digests(own) == before
    own.call("checksum", "--env", "demo")
    own.result("demo", ISO).resolve().with_name(f"{ISO}.sha256").unlink()
    assert planned(own, "--env", "demo")["iso"] == [f"build/demo/{ISO} or its checksum is gone"]
    own.call("iso", "--env", "demo")
    assert digests(own) == before


def test_a_name_that_another_clone_took_is_given_back(own: Workspace) -> None:
    found = digests(own)
    run(["docker", "image", "tag", found["iso-image"], "ttl.sh/edgebuild:k3s-1.24.6-v4.9.38-demo"])
    if found["iso-image"] == found["provider-image-1-24-6"]:
        pytest.fail("the two images must differ for this test to tell anything")
    own.call("build-all-images", "--env", "demo")
    named = run(["docker", "image", "inspect", "--format", "{{.Id}}", "ttl.sh/edgebuild:k3s-1.24.6-v4.9.38-demo"])
    assert named.stdout.strip() == found["provider-image-1-24-6"]


def test_one_more_version_builds_that_only_and_again_builds_all(own: Workspace, tmp_path: Path) -> None:
    more = ["--env", "demo", "--set", 'kubernetes.versions=["1.24.6", "1.25.2", "1.26.0"]']
    result = own.call("build-all-images", *more)
    assert "build   provider-image-1-26-0, because never built here" in result.stderr
    assert "cached  provider-image-1-24-6, provider-image-1-25-2, iso-image, boot-tree, iso" in result.stderr
    again = own.call("build-provider-images", *more, "--again", env={"TMPDIR": str(tmp_path)})
    assert "because it was asked for again" in again.stderr
    assert not list(tmp_path.iterdir())  # as buildx alone would leave
    own.call("provider-image", "--env", "demo", "--k8s-version", "1.24.6")
    assert "provider-image-1-25-2" in digests(own)
    run(["docker", "image", "rm", "ttl.sh/edgebuild:k3s-1.26.0-v4.9.38-demo"])


def test_two_environments_in_one_run(own: Workspace) -> None:
    text = (own.root / "config/demo.yaml").read_text().replace("tag: demo", "tag: second")
    own.write("config/second.yaml", text.replace('"1.24.6", "1.25.2"', '"1.24.6"'))
    result = own.call("build-provider-images", "--env", "demo", "--env", "second")
    assert "second: build   provider-image-1-24-6, because never built here" in result.stderr
    assert re.search(r"^demo +0 +2 +0 +build/demo$", result.stdout, re.MULTILINE)
    assert re.search(r"^second +1 +0 +0 +build/second$", result.stdout, re.MULTILINE)
    assert set(digests(own, "second")) == {"provider-image-1-24-6"}
    assert "cached" in own.call("plan", "--env", "all", "--shard", "1/1", env={"EDGE_HOST_TOKEN": "x"}).stdout
    own.call("clean", "--env", "second")


def test_shards_build_their_part(own: Workspace) -> None:
    matrix = json.loads(own.call("ci-matrix", "--env", "demo", "--shards", "3").stdout)["include"]
    assert [job["shard"] for job in matrix] == ["1/3", "2/3", "3/3"]
    parts = [planned(own, "--env", "demo", "--shard", job["shard"]).keys() for job in matrix]
    assert sorted(name for part in parts for name in part) == sorted(planned(own, "--env", "demo"))
    outside = own.call("build-all-images", "--env", "demo", "--shard", "4/3", check=False)
    assert (outside.returncode, "--shard 4/3" in outside.stderr) == (2, True)
    empty = own.call("build-all-images", "--env", "demo", "--shard", "9/9", check=False)
    assert empty.returncode == 0, empty.stderr


def test_without_its_secret_the_iso_is_not_judged(own: Workspace) -> None:
    result = own.call("plan", "--env", "demo", "--set", "secrets.edge_host_token=env:NOT_SET_HERE")
    assert "whether the ISO is up to date is not known" in result.stderr
    assert "NOT_SET_HERE" in result.stderr


def test_a_changed_secret_is_told_by_its_line_and_nowhere_written(own: Workspace) -> None:
    token = ["--env", "demo", "--set", "secrets.edge_host_token=env:TOKEN_OF_TEST"]
    own.call("build-all-images", *token, env={"TOKEN_OF_TEST": "the first token of this test"})
    found = own.call("plan", *token, env={"TOKEN_OF_TEST": "the second token of this test"}).stdout
    assert "build, because user-data changed: line 4" in found
    for file in Results(own.root / "build/demo").records.folder.rglob("*.json"):
        assert "token of this test" not in file.read_text()
    own.call("build-all-images", "--env", "demo")


def breaking(workspace: Workspace, *versions: str) -> None:
    """Make the images of these versions fail, and no others."""
    lines = ""
    for version in versions:
        lines += f"{{% if image.name == 'provider-image-{version.replace('.', '-')}' %}}\n"
        lines += f"RUN echo {version} is broken; exit 7\n{{% endif %}}\n"
    file = workspace.root / "Dockerfile.j2"
    stage = "FROM base-image AS {{ image.name }}\n"
    text = re.sub(r"(\{% if image.name ==.*?endif %\}\n)+", "", file.read_text(), flags=re.DOTALL)
    file.write_text(text.replace(stage, stage + lines))


def test_one_failed_version_does_not_stop_the_others(own: Workspace) -> None:
    three = ["--env", "failing", "--set", 'kubernetes.versions=["1.24.6", "1.25.2", "1.26.0"]']
    own.write("config/failing.yaml", (own.root / "config/demo.yaml").read_text().replace("tag: demo", "tag: failing"))
    breaking(own, "1.25.2")
    result = own.call("build-provider-images", *three, "--jobs", "2", check=False)
    assert result.returncode == 1
    assert "provider-image-1-25-2: not built; going on with the others" in result.stderr
    assert "a build step failed" in result.stderr
    assert "1.25.2 is broken" in result.stderr
    assert set(digests(own, "failing")) == {"provider-image-1-24-6", "provider-image-1-26-0"}
    breaking(own, "1.24.6", "1.26.0")  # those are cached, and must be made anew
    result = own.call("build-provider-images", *three, check=False)
    assert "2 not built, 1 built:" in result.stderr
    assert "failing: provider-image-1-26-0: a build step failed" in result.stderr
    assert len(digests(own, "failing")) == 3
    stopped = own.call("build-provider-images", *three, "--jobs", "1", "--fail-fast", check=False)
    assert (stopped.returncode, "going on" in stopped.stderr) == (1, False)
    breaking(own)
    result = own.call("build-provider-images", *three)  # the keys are those of what was built first
    assert "cached  provider-image-1-24-6, provider-image-1-25-2, provider-image-1-26-0" in result.stderr
    assert not any(planned(own, *three, "--shard", "2/2").values())
    own.call("clean", *three[:2])


def test_a_failed_environment_does_not_stop_the_others(own: Workspace) -> None:
    text = (own.root / "config/demo.yaml").read_text().replace("tag: demo", "tag: other")
    own.write("config/other.yaml", text.replace('"1.24.6", "1.25.2"', '"1.27.0"'))
    breaking(own, "1.24.6")
    result = own.call("build-provider-images", "--env", "demo", "--env", "other", check=False)
    breaking(own)
    assert result.returncode == 1
    assert re.search(r"^demo +0 +1 +1 +build/demo$", result.stdout, re.MULTILINE)
    assert re.search(r"^other +1 +0 +0 +build/other$", result.stdout, re.MULTILINE)
    own.call("clean", "--env", "other")
