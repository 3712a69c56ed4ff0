"""Results, inputs, doctor, arguments, tasks, registry: the parts that need no process."""

import json
import os
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from invoke.collection import Collection

import tasks
from edgebuild import arguments, doctor, generated, localimages, references, report, workflow
from edgebuild.config import load_environment
from edgebuild.errors import InputError
from edgebuild.inputs import find_inputs
from edgebuild.results import Artifact, Results


def artifact(name: str, digest: str = "sha256:1") -> Artifact:
    return Artifact(name=name, kind="iso", digest=digest, size_bytes=1, seconds=0.5, path=f"build/x/{name}")


def publish(results: Results, files: dict[str, str], *artifacts: Artifact, drop: tuple[str, ...] = ()) -> None:
    with results.lock(print), results.staging() as staging:
        for name, text in files.items():
            (staging / name).parent.mkdir(exist_ok=True)
            (staging / name).write_text(text)
        results.publish(staging, {"a", "b"}, artifacts, drop=drop)


def test_results_switch_as_a_whole(tmp_path: Path) -> None:
    results = Results(tmp_path / "build/x")
    publish(results, {"one.iso": "1", "one.iso.sha256": "1", "inputs/Dockerfile": "FROM"}, artifact("a"))
    publish(results, {"cluster-profile.yaml": "p"}, artifact("b"))
    assert (results.folder / "one.iso").read_text() == "1"
    assert (results.folder / "inputs/Dockerfile").read_text() == "FROM"
    assert [each.name for each in results.artifacts()] == ["a", "b"]
    publish(
        results, {"two.iso": "2", "two.iso.sha256": "2"}, artifact("a", "sha256:2"), drop=("*.iso", "*.iso.sha256")
    )
    assert not os.path.lexists(results.folder / "one.iso")
    assert (results.folder / "two.iso").read_text() == "2"
    assert (results.folder / "cluster-profile.yaml").read_text() == "p"
    assert results.artifacts()[0].digest == "sha256:2"
    assert len(list((results.folder / ".sets").iterdir())) == 1


def test_a_failed_run_leaves_the_last_set(tmp_path: Path) -> None:
    results = Results(tmp_path / "build/x")
    publish(results, {"one.iso": "1"}, artifact("a"))

    def fail() -> None:
        with results.lock(print), results.staging() as staging:
            (staging / "one.iso").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (results.folder / "one.iso").read_text() == "1"
    # What a killed run leaves behind goes with the next one.
    (results.folder / ".sets/staging-1").mkdir()
    publish(results, {})
    assert not (results.folder / ".sets/staging-1").exists()


def test_old_artifacts_leave_the_list(tmp_path: Path) -> None:
    results = Results(tmp_path / "build/x")
    publish(results, {}, artifact("a"), artifact("gone"))
    publish(results, {}, artifact("b"))
    assert [each.name for each in results.artifacts()] == ["a", "b"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for folder in ("certs", "overlay/files/etc", "overlay/files-iso", "content-1"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def test_inputs(repository: Path, root: Path) -> None:
    (repository / "certs/ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    (repository / "overlay/files/etc/a").write_text("")
    (repository / "overlay/files/link").symlink_to("/etc/a")
    (repository / "overlay/files/.gitkeep").write_text("")
    (repository / "content-1/x.zst").write_text("")
    tarfile.open(repository / "content-1/y.tar", "w").close()
    found = find_inputs(repository, load_environment(root, "basic", environ={}))
    assert found.certificates == ("certs/ca.pem",)
    assert found.overlay == ("etc/a", "link")
    assert found.overlay_etc
    assert found.content == ("content-1/x.zst", "content-1/y.tar")


def test_wrong_inputs_all_at_once(repository: Path, root: Path) -> None:
    (repository / "certs/key.pem").write_text("-----BEGIN PRIVATE KEY-----\n")
    (repository / "overlay/files/etc/out").symlink_to("../../../../secret")
    (repository / "overlay/files-iso/out").symlink_to("../up")
    settings = ["iso.content=[content-1/none.zst]", "iso.cluster_definition=none.tgz"]
    with pytest.raises(InputError) as caught:
        find_inputs(repository, load_environment(root, "basic", environ={}, settings=settings))
    for text in (
        "certs/key.pem: not a certificate in PEM form",
        "overlay/files/etc/out: the link leads to ../../../../secret, out of the overlay",
        "overlay/files-iso/out: the link leads to ../up",
        "iso.content: content-1/none.zst does not exist",
        "iso.cluster_definition: none.tgz does not exist",
    ):
        assert text in str(caught.value)


def test_links_and_special_files(repository: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    (repository / "certs/good.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    (repository / "certs/linked.pem").symlink_to("good.pem")
    (repository / "certs/absolute.pem").symlink_to(repository / "certs/good.pem")
    (repository / "certs/out.pem").symlink_to(elsewhere / "ca.pem")
    (repository / "certs/circle.pem").symlink_to("circle.pem")
    os.mkfifo(repository / "certs/pipe.pem")
    os.mkfifo(repository / "overlay/files/etc/pipe")
    (repository / "overlay/files/deep/er").mkdir(parents=True)
    (repository / "overlay/files/deep/er/top").symlink_to("../..")
    (repository / "overlay/files/chain").symlink_to("deep/er/top/../out")
    (repository / "overlay/files/fine").symlink_to("deep/er/top/etc")
    (repository / "overlay/files/absolute").symlink_to("/../etc")
    (repository / os.fsdecode(b"overlay/files/latin-\xfc")).write_text("")
    (repository / "overlay/files/two\nlines").write_text("")
    (repository / "overlay/files-iso").rmdir()
    (repository / "overlay/files-iso").symlink_to(elsewhere)
    with tarfile.open(repository / "content-1/bad.tar", "w") as made:
        made.addfile(tarfile.TarInfo("../../etc/passwd"))
    (repository / "spc.tgz").write_text("not an archive")
    settings = ["iso.cluster_definition=spc.tgz", "iso.content=['content-1/*.tar', '**x', '']"]
    with pytest.raises(InputError) as caught:
        find_inputs(repository, load_environment(root, "basic", environ={}, settings=settings))
    shown = str(caught.value)
    for text in (
        "certs/absolute.pem: the link must be relative",
        "certs/out.pem: the link leads out of the repository",
        "certs/circle.pem: cannot be read",
        "certs/pipe.pem: not a certificate",
        "overlay/files/etc/pipe: neither file, folder nor link",
        "overlay/files/chain: the link leads to deep/er/top/../out, out of the overlay",
        "overlay/files/absolute: the link leads to /../etc, out of the overlay",
        r"'overlay/files/latin-\udcfc': the name holds a control character, or bytes that are not UTF-8",
        r"'overlay/files/two\nlines': a name with a line end",
        "overlay/files-iso: the link leads out of the repository",
        "content-1/bad.tar: the member '../../etc/passwd' would be unpacked outside of its folder",
        "spc.tgz: no tar archive, or a broken one",
        "iso.content: '**x' is no pattern",
        "iso.content: '' is no pattern",
    ):
        assert text in shown, shown
    for text in ("good.pem", "linked.pem", "fine"):
        assert text not in shown


def test_missing_certificate_folder(repository: Path, root: Path) -> None:
    with pytest.raises(InputError, match="the folder nowhere does not exist"):
        find_inputs(repository, load_environment(root, "basic", environ={}, settings=["certs=nowhere"]))


NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("check", "status"),
    [
        (doctor.judge_architecture("x86_64", "amd64"), "ok"),
        (doctor.judge_architecture("aarch64", "amd64"), "warning"),
        (doctor.judge_amount("memory", 16, 8, "GB", status="warning", remedy="r"), "ok"),
        (doctor.judge_amount("disk", 4, 8, "GB", status="error", remedy="r"), "error"),
        (doctor.judge_clock(NOW, NOW, NOW - timedelta(days=1)), "ok"),
        (doctor.judge_clock(NOW, None, NOW + timedelta(days=1)), "error"),
        (doctor.judge_clock(NOW, NOW + timedelta(hours=1), None), "warning"),
        (doctor.judge_proxy({}, False), "ok"),
        (doctor.judge_proxy({"HTTPS_PROXY": "http://p"}, False), "warning"),
        (doctor.judge_proxy({"HTTPS_PROXY": "http://p"}, True), "ok"),
        (doctor.judge_login("ttl.sh", {}), "ok"),
        (doctor.judge_login("docker.io", {}), "warning"),
        (doctor.judge_login("docker.io", {"auths": {"https://index.docker.io/v1/": {}}}), "ok"),
        (doctor.judge_login("r.example.com", {"credHelpers": {"r.example.com": "x"}}), "ok"),
        (doctor.judge_privileged({}, None), "ok"),
        (doctor.judge_privileged({}, False), "warning"),
    ],
)
def test_doctor(check: doctor.Check, status: str) -> None:
    assert check.status == status
    line = doctor.format_check(check)
    assert "\n" not in line
    assert (" -> " in line) == (status != "ok")


ARG = """# comment
CUSTOM_TAG=demo
export IMAGE_REGISTRY="ttl.sh"
OS_DISTRIBUTION=ubuntu
OS_VERSION=22
K8S_DISTRIBUTION=k3s
ISO_NAME=palette-edge-installer
PE_VERSION=v4.9.38
ARCH=amd64
NO_PROXY=10.0.0.0/8,localhost
UPDATE_KERNEL=false
"""


def test_import_arg(root: Path, tmp_path: Path) -> None:
    text = arguments.import_arg(ARG, source=".arg")
    (tmp_path / "config").mkdir()
    for name in ("releases", "defaults.yaml"):
        (tmp_path / "config" / name).symlink_to(root / "config" / name)
    (tmp_path / "config/shop.yaml").write_text(text)
    environment = load_environment(tmp_path, "shop", environ={})
    assert environment.os.version == "22.04"
    assert environment.proxy.no_proxy == ("10.0.0.0/8", "localhost")
    assert environment.os.update_kernel is False


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("IS_UKI=true", ".arg: IS_UKI has no key here"),
        ("CUSTOM_TG=x", "did you mean CUSTOM_TAG?"),
        ("a b", ".arg:1: expected NAME=value"),
        ("A='", ".arg:1: No closing quotation"),
    ],
)
def test_wrong_arg(text: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        arguments.import_arg(text, source=".arg")
    assert expected in str(caught.value)


def test_every_argument_has_a_key_that_exists(root: Path) -> None:
    environment = load_environment(root, "basic", environ={})
    for argument in arguments.ARGUMENTS:
        value: object = environment
        for part in argument.key.split("."):
            if part == "kairos_init_version":  # only the newest release names it
                break
            value = value[part] if isinstance(value, dict) else getattr(value, part)


def test_generated_files_are_up_to_date(root: Path) -> None:
    for path, text in generated.files().items():
        assert (root / path).read_text(encoding="utf-8") == text, "run ./inv config.generate"


def all_tasks(collection: Collection) -> list[object]:
    return [collection[name] for name in collection.task_names]


def test_every_task_has_help() -> None:
    for name in tasks.ns.task_names:
        task = tasks.ns[name]
        first = (task.__doc__ or "").splitlines()[0]
        assert first.endswith("."), name
        for argument in task.get_arguments():
            assert argument.help, f"{name} --{argument.name}"


def test_tasks_carry_canvos_names() -> None:
    for name in (
        "build-all-images",
        "build-provider-images",
        "provider-image",
        "base-image",
        "iso-image",
        "iso",
        "checksum",
    ):
        assert name in tasks.ns.task_names


LAYERS = {"a": [("base", 100), ("x", 5)], "b": [("base", 100), ("y", 7)], "c": [("other", 50)]}


def test_shared_bytes() -> None:
    assert localimages.shared_bytes(LAYERS) == {"a": 100, "b": 100, "c": 0}


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("ttl.sh/ubuntu:demo", ("ttl.sh", "ubuntu", "demo")),
        ("docker.io/me/x:1", ("docker.io", "me/x", "1")),
        ("me/x", ("docker.io", "me/x", "latest")),
        ("debian:12", ("docker.io", "library/debian", "12")),
        ("localhost:5000/a/b:1", ("localhost:5000", "a/b", "1")),
    ],
)
def test_split_reference(reference: str, expected: tuple[str, str, str]) -> None:
    assert references.split_reference(reference) == expected


def test_lifetime() -> None:
    assert "1h" in references.lifetime("ttl.sh/x:1h")
    assert "24 hours" in references.lifetime("ttl.sh/x:k3s-1.33.6-v4.9.38-demo")
    assert references.lifetime("docker.io/me/x:1") == ""


@pytest.mark.parametrize(
    ("message", "transient"),
    [
        ("received unexpected HTTP status: 500 Internal Server Error", True),
        ("toomanyrequests: too many requests", True),
        ("read: connection reset by peer", True),
        ("net/http: TLS handshake timeout", True),
        ("unexpected EOF", True),
        ("denied: requested access to the resource is denied", False),
        ("unauthorized: authentication required", False),
        ("manifest not found", False),
    ],
)
def test_transient(message: str, transient: bool) -> None:
    assert references.is_transient(message) is transient


def test_report() -> None:
    assert [report.size(value) for value in (999, 1000, 1_500_000, 2 * 10**12)] == [
        "999 B",
        "1.0 kB",
        "1.5 MB",
        "2000.0 GB",
    ]
    assert [report.age(value) for value in (5, 200, 10**4, 10**6)] == ["5 seconds", "3 minutes", "2 hours", "11 days"]
    assert report.table([("a", "b"), ("long", "x")]) == "a     b\nlong  x\n"


def test_the_plan_for_people_names_each_upstream_image_once(root: Path) -> None:
    from edgebuild.plan import make_plan

    environment = load_environment(root, "basic", environ={}, settings=["kubernetes.versions=all"])
    text = report.plan_text(make_plan("basic", environment), environment)
    assert text.count("stylus-framework") == 1
    assert json.loads(report.plan_json(make_plan("basic", environment)))["environment"] == "basic"


@pytest.mark.parametrize(
    ("data", "name", "expected"),
    [
        (b"CUSTOM_TAG=\xff\n", "", "not UTF-8 text: invalid start byte at byte 11"),
        (b"CUSTOM_TAG=a\n", "../../shop", "expected letters, digits"),
    ],
)
def test_import_of_what_is_none(tmp_path: Path, data: bytes, name: str, expected: str) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "x.arg").write_bytes(data)
    with pytest.raises(InputError, match=expected):
        workflow.import_arguments(tmp_path, tmp_path / "x.arg", name)
    assert not list((tmp_path / "config").iterdir())
