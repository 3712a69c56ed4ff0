"""Wrong input and broken surroundings: exit code, message, and the earlier result still whole."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgebuild.run import Result, process, run
from tests.conftest import TOKEN, Workspace, copy_repository
from tests.registry_server import USERS, registry_server
from tests.upstream import mirror_setting


@pytest.fixture
def built(workspace: Workspace, demo: Result) -> Iterator[Workspace]:
    """The demo workspace with a finished build, which must be whole afterwards too."""
    iso = workspace.result("demo", "palette-edge-installer.iso")
    before = (iso.stat().st_ino, iso.stat().st_mtime_ns)
    yield workspace
    assert (iso.stat().st_ino, iso.stat().st_mtime_ns) == before
    run(["sha256sum", "--check", "--strict", iso.name + ".sha256"], cwd=iso.parent)
    assert not list((workspace.root / "build/demo/.sets").glob("staging-*"))


def fails(workspace: Workspace, code: int, *arguments: str, says: str, env: dict[str, str] | None = None) -> Result:
    result = workspace.call(*arguments, check=False, env=env)
    assert result.returncode == code, result.stdout + result.stderr
    assert says in result.stderr
    assert result.stderr.lstrip().rpartition("error: ")[1], result.stderr
    return result


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--env", "nowhere"], "config/nowhere.yaml does not exist; there are: advanced, basic, demo"),
        (["--env", "demo", "--set", "image.tg=x"], "--set image.tg: no such key; did you mean image.tag?"),
        (["--env", "demo", "--set", "image.tag=Demo"], "image.tag: expected lower-case"),
        (["--env", "demo", "--set", "iso.name=a/b"], "iso.name: expected lower-case"),
        (["--env", "demo", "--set", "iso.content=[none.tar]"], "iso.content: none.tar does not exist"),
        (["--env", "demo", "--set", "certs=none"], "certs: the folder none does not exist"),
        (["--env", "demo", "--set", "secrets.edge_host_token=env:UNSET_TOKEN"], "variable UNSET_TOKEN is not set"),
        (["--env", "demo", "--set", "secrets.edge_host_token=env:EMPTY"], "variable EMPTY is empty"),
    ],
)
def test_wrong_input_stops_before_anything_is_done(built: Workspace, arguments: list[str], says: str) -> None:
    logs = set((built.root / "build/demo/logs").iterdir())
    fails(built, 2, "build-all-images", *arguments, says=says, env={"EMPTY": ""})
    assert set((built.root / "build/demo/logs").iterdir()) == logs


@contextlib.contextmanager
def changed(file: Path, text: str) -> Iterator[None]:
    before = file.read_text()
    file.write_text(text)
    try:
        yield
    finally:
        file.write_text(before)


def test_wrong_user_data(built: Workspace) -> None:
    template = built.root / "user-data.j2"
    with changed(template, template.read_text().replace("poweroff: true", "poweroff: true\n  reboot: true")):
        fails(built, 2, "iso", "--env", "demo", says="install: reboot and poweroff cannot both be true")
    with changed(template, template.read_text() + "stylus: {sight: {}}\n"):
        fails(built, 2, "iso", "--env", "demo", says="stylus.sight: no such key; did you mean site?")


def test_an_overlay_that_leaves_its_tree(built: Workspace) -> None:
    link = built.root / "overlay/files-iso/out"
    link.symlink_to("../../../secret")
    try:
        fails(built, 2, "iso", "--env", "demo", says="overlay/files-iso/out: the link leads to ../../../secret")
    finally:
        link.unlink()


def test_a_failing_line_of_ones_own(built: Workspace) -> None:
    file = built.root / "Dockerfile.j2"
    with changed(file, file.read_text() + "RUN echo something went wrong >&2; exit 7\n"):
        result = fails(built, 1, "build-all-images", "--env", "demo", says="a build step failed")
    assert "something went wrong" in result.stderr
    assert "RUN echo something went wrong" in result.stderr
    log = result.stderr.rpartition("log:  ")[2].splitlines()[0]
    assert "something went wrong" in Path(log).read_text()
    assert Path(log).stat().st_mode & 0o077 == 0


def test_a_compression_that_the_kernel_cannot_read(built: Workspace, upstream: str) -> None:
    settings = ["--set", f"os.base_image={upstream}/broken/no-zstd:1", "--set", mirror_setting(upstream)]
    env = {"EDGE_HOST_TOKEN": TOKEN}
    fails(
        built,
        1,
        "iso",
        "--env",
        "basic",
        *settings,
        says="lacks CONFIG_SQUASHFS_ZSTD, which iso.compression=fast",
        env=env,
    )


def test_an_upstream_image_that_does_not_exist(built: Workspace, upstream: str) -> None:
    settings = ["--set", f"os.base_image={upstream}/no/such:1", "--set", mirror_setting(upstream)]
    result = fails(built, 1, "base-image", "--env", "basic", *settings, says=f"{upstream}/no/such:1 does not exist")
    assert "registries.mirrors" in result.stderr


def test_an_upstream_image_of_another_architecture(built: Workspace, upstream: str) -> None:
    settings = ["--set", f"os.base_image={upstream}/broken/arm64:1", "--set", mirror_setting(upstream)]
    fails(built, 1, "base-image", "--env", "basic", *settings, says="is for another architecture")


def test_a_registry_that_cannot_be_reached(built: Workspace) -> None:
    settings = ["--set", "os.base_image=127.0.0.1:1/no/such:1"]
    fails(built, 1, "base-image", "--env", "basic", *settings, says="its registry cannot be reached")


def test_a_registry_that_wants_a_login(built: Workspace, tmp_path: Path) -> None:
    with registry_server(tmp_path / "closed", users=USERS) as closed:
        pull = ["--set", f"os.base_image={closed}/x/base:1"]
        result = fails(built, 4, "base-image", "--env", "basic", *pull, says="the registry wants a login")
        assert f"docker login {closed}" in result.stderr
        built.call("provider-image", "--k8s-version", "1.24.6", "--env", "demo", "--set", f"image.registry={closed}")
        settings = ["--set", f"image.registry={closed}", "--set", "kubernetes.versions=1.24.6"]
        result = fails(built, 4, "push", "--env", "demo", *settings, says="were not pushed")
        assert f"docker login {closed}" in result.stderr


def test_no_engine_and_no_leave_to_start_one(built: Workspace) -> None:
    env = {"DOCKER_HOST": "unix:///nowhere/docker.sock", "EDGEBUILD_ENGINE": "never"}
    fails(built, 3, "build-all-images", "--env", "demo", says="no engine at DOCKER_HOST=unix:///nowhere", env=env)


def test_an_engine_of_debian_that_does_not_run(built: Workspace, tmp_path: Path) -> None:
    """A machine whose docker command finds nothing, and that may not be changed."""
    config = tmp_path / "docker"
    run(
        ["docker", "context", "create", "off", "--docker", "host=unix:///nowhere/docker.sock"],
        env={"DOCKER_CONFIG": str(config)},
    )
    env = {"DOCKER_CONFIG": str(config), "DOCKER_CONTEXT": "off", "EDGEBUILD_ENGINE": "never"}
    result = fails(built, 3, "build-all-images", "--env", "demo", says="the engine is not running", env=env)
    assert "hint: type, as root:" in result.stderr


def test_no_permission_on_the_socket(built: Workspace) -> None:
    """As a user who is not in the group docker."""
    script = """
import os, sys
from edgebuild import engine, errors, host, run
os.setgroups([]), os.setgid(65534), os.setuid(65534)
try:
    engine.ensure_engine(None, host.Consent(print, None, {}))
except errors.EdgebuildError as error:
    print(error)
    sys.exit(error.exit_code)
"""
    path = Path("/tmp") / f"edgebuild-{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o600)
        try:
            env = {"DOCKER_HOST": f"unix://{path}", "PYTHONPATH": str(built.root), "HOME": "/nonexistent"}
            shown = run([sys.executable, "-c", script], cwd=Path("/"), env=env, check=False)
        finally:
            path.unlink()
    assert shown.returncode == 3, shown.stdout + shown.stderr
    assert "no permission on the Docker socket" in shown.stdout
    assert "sudo usermod -aG docker" in shown.stdout


def interrupt_when(workspace: Workspace, arguments: list[str], sign: str, number: int) -> Result:
    """Run a task and send a signal when a line of its output holds `sign`."""
    argv = [sys.executable, "-u", "-m", "invoke", "--search-root", str(workspace.root), *arguments]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with process(argv, cwd=workspace.root, **pipes) as child:  # type: ignore[arg-type]
        text = ""
        for line in child.stdout:  # type: ignore[union-attr]
            text += line
            if sign in line:
                child.send_signal(number)
                sign = "\0"
        child.wait()
    assert "Traceback" not in text, text
    return Result(tuple(argv), child.returncode, text, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("arguments", "sign"),
    [
        (["build-all-images", "--env", "demo", "--set", "os.packages=[hello]"], "building"),
        (["build-all-images", "--env", "demo", "--again"], "putting together"),
        (["boot", "--env", "demo", "--firmware", "bios", "--again"], "booting by"),
    ],
)
def test_interrupted(built: Workspace, arguments: list[str], sign: str, number: int) -> None:
    result = interrupt_when(built, arguments, sign, number)
    assert result.returncode == 130, result.stdout
    assert "interrupted; earlier results are as they were" in result.stdout
    running = run(["docker", "ps", "--all", "--format", "{{.Names}}"]).stdout
    assert "edgebuild-" not in running


def test_interrupted_push(built: Workspace) -> None:
    """A registry that takes the connection and says nothing."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        names = [f"edgebuild:k3s-{version}-v4.9.38-demo" for version in ("1.24.6", "1.25.2")]
        for name in names:
            run(["docker", "image", "tag", f"ttl.sh/{name}", f"{address}/{name}"])
        asked = ["push", "--env", "demo", "--set", f"image.registry={address}"]
        result = interrupt_when(built, asked, "pushing", signal.SIGINT)
        assert result.returncode == 130, result.stdout
        run(["docker", "image", "rm", *[f"{address}/{name}" for name in names]])


def test_interrupted_while_the_base_is_made(built: Workspace, tmp_path: Path) -> None:
    other = copy_repository(tmp_path / "other")
    shutil.rmtree(other.root / "build")
    result = interrupt_when(other, ["base-image", "--env", "demo"], "making Debian", signal.SIGINT)
    assert result.returncode == 130, result.stdout
    assert not list((other.root / "build/.cache").rglob("*.tar"))


def test_a_full_disk_while_the_iso_is_written(built: Workspace, tmp_path: Path) -> None:
    """A small file system of its own for build/."""
    small = copy_repository(tmp_path / "small")
    shutil.rmtree(small.root / "build", ignore_errors=True)
    (small.root / "build").mkdir()
    image = tmp_path / "disk"
    run(["truncate", "--size", "64M", image])
    run(["mkfs.ext4", "-q", image])
    run(["mount", "-o", "loop", image, small.root / "build"])
    try:
        from edgebuild.errors import BuildError
        from edgebuild.iso import IsoRequest, assemble

        folder = small.root / "build/demo"
        folder.mkdir()
        (folder / "text").write_text("#cloud-config\n")
        request = IsoRequest(
            image="edgebuild/boot-tree:demo",
            arch="amd64",
            grub_cfg=folder / "text",
            user_data=folder / "text",
            epoch=1704067200,
        )
        with pytest.raises(BuildError, match="cannot be written: No space left on device"):
            assemble(request, folder / "x.iso")
        assert not (folder / "x.iso").exists()
        result = fails(
            small,
            1,
            "build-all-images",
            "--env",
            "basic",
            says="are free, and this build may need",
            env={"EDGE_HOST_TOKEN": TOKEN},
        )
        assert "./inv clean" in result.stderr
    finally:
        run(["umount", small.root / "build"])


@contextlib.contextmanager
def second_engine() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A dockerd of our own, to be killed: its address and its process."""
    folder = Path(tempfile.mkdtemp(prefix="eb"))  # the path of a socket may have 104 characters
    host = f"unix://{folder}/docker.sock"
    # In a network of its own: a second dockerd would take the bridge of the first.
    argv = ["unshare", "--net", "dockerd", "--host", host, "--iptables=false", "--storage-driver", "overlay2"]
    argv += ["--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid"]
    try:
        with (folder / "log").open("wb") as log, process(argv, stdout=log, stderr=log) as daemon:
            deadline = time.monotonic() + 60
            while run(["docker", "version"], env={"DOCKER_HOST": host}, check=False).returncode:
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.2)  # dockerd tells nobody when it is ready
            yield host, daemon
            daemon.kill()
    finally:
        run(["pkill", "-9", "-f", f"containerd.*{folder}"], check=False)
        run(["sh", "-c", f"grep -o '{folder}[^ ]*' /proc/mounts | sort -r | xargs -r umount -l"], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def test_an_engine_that_dies_during_the_build(built: Workspace, tmp_path: Path) -> None:
    """Killed in the middle of a step."""
    other = copy_repository(tmp_path / "other")
    own = other.root / "Dockerfile.j2"
    # No packages: this engine's containers have no way out, and the minimal root is enough.
    text = own.read_text().replace('{% include "debian-bootstrap.j2" %}', "").replace('{% include "tools.j2" %}', "")
    own.write_text(text + "RUN echo the-step-runs && sleep 120\n")
    with second_engine() as (host, daemon):

        def kill() -> None:
            logs = other.root / "build/demo/logs"
            while not any("the-step-runs\n" in file.read_text() for file in logs.glob("*")):
                time.sleep(0.2)  # another process writes the log
            daemon.kill()

        threading.Thread(target=kill, daemon=True).start()
        says = "the engine went away during the build"
        fails(other, 3, "base-image", "--env", "demo", says=says, env={"DOCKER_HOST": host})


def test_a_second_run_waits_and_says_for_whom(built: Workspace) -> None:
    import fcntl

    with (built.root / "build/demo/.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write("process 1, since 12:00:00")
        lock.flush()
        argv = [sys.executable, "-u", "-m", "invoke", "--search-root", str(built.root), "profile", "--env", "demo"]
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        with process(argv, cwd=built.root, **pipes) as child:  # type: ignore[arg-type]
            line = child.stderr.readline()  # type: ignore[union-attr]
            assert "waiting for another run on this environment (process 1, since 12:00:00)" in line
            fcntl.flock(lock, fcntl.LOCK_UN)
            child.wait()
        assert child.returncode == 0
