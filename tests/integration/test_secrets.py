"""Secrets planted in everything that a build makes: each is found and named, none is shown, nothing is deleted."""

import base64
import json
import os
import pty
import secrets as randomness
import shlex
import shutil
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgebuild import imagescan, scan
from edgebuild.boot import BootRequest, boot_iso
from edgebuild.errors import VerificationError
from edgebuild.needles import Needles
from edgebuild.run import Result, process, run
from edgebuild.secrets import hidden
from tests.conftest import Workspace, copy_repository
from tests.integration.images import iso_text

# New ones each time: the engine's cache keeps what a build was told.
TOKEN = f"edge-{randomness.token_hex(12)}"
PASSWORD = f"p ä'ss\"w/{randomness.token_hex(6)}+$x"
LOGIN = f"login-{randomness.token_hex(8)}"
ENVIRONMENT = {"EDGE_HOST_TOKEN": TOKEN, "USER_PASSWORD": PASSWORD}
PROVIDER = "ttl.sh/edgebuild:k3s-1.24.6-v4.9.38-leaky"
BUILD_PROVIDER = ["provider-image", "--k8s-version", "1.24.6", "--env", "leaky"]
OWN_STAGE = "FROM base-image AS {{ image.name }}\n"


@pytest.fixture(scope="module")
def leaky(bootstrapped: Path, demo: Result, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A fork with three secrets, and a whole set built with them."""
    fork = copy_repository(tmp_path_factory.mktemp("leaky"))
    text = (fork.root / "config/demo.yaml").read_text().replace("tag: demo", "tag: leaky")
    text += "secrets:\n  edge_host_token: env:EDGE_HOST_TOKEN\n  user_password: env:USER_PASSWORD\n"
    fork.write("config/leaky.yaml", text + "  luet_auth: file:spectro-luet-auth.yaml\n")
    fork.write("spectro-luet-auth.yaml", f"auth:\n  username: me\n  password: {LOGIN}\n")
    built = fork.call("build-all-images", "--env", "leaky", env=ENVIRONMENT)
    fork.write("first", built.stdout + built.stderr)
    yield fork
    fork.call("clean", "--env", "leaky")


@pytest.fixture
def clean(leaky: Workspace) -> Iterator[Workspace]:
    """The fork, with its set as it was and its files back as they were afterwards."""
    names = ("Dockerfile.j2", "config/leaky.yaml", "user-data.j2")
    texts = {name: (leaky.root / name).read_text() for name in names}
    iso = leaky.result("leaky", "palette-edge-installer.iso")
    before = (iso.stat().st_ino, iso.stat().st_mtime_ns, leaky.result("leaky", "artifacts.json").read_bytes())
    yield leaky
    assert (iso.stat().st_ino, iso.stat().st_mtime_ns, leaky.result("leaky", "artifacts.json").read_bytes()) == before
    run(["sha256sum", "--check", "--strict", iso.name + ".sha256"], cwd=iso.parent)
    for name, text in texts.items():
        leaky.write(name, text)


def hides(text: str) -> None:
    for value in (TOKEN, PASSWORD, LOGIN):
        for form in (value, json.dumps(value)[1:-1], urllib.parse.quote(value, safe=""), shlex.quote(value)):
            assert form not in text
        assert base64.b64encode(value.encode()).decode().rstrip("=")[:-1] not in text


def finds(fork: Workspace, *arguments: str) -> list[str]:
    """The places that a failing build names; nothing else changes."""
    result = fork.call(*arguments, env=ENVIRONMENT, check=False)
    assert result.returncode == 5, result.stdout + result.stderr
    hides(result.stdout + result.stderr)
    assert "nothing was deleted" in result.stderr
    lines = result.stderr.partition("a secret stands where it must not")[2].splitlines()
    return [line.strip() for line in lines if line.startswith("  secrets.")]


def test_a_clean_build_says_where_the_token_stands(leaky: Workspace) -> None:
    first = (leaky.root / "first").read_text()
    hides(first)
    line = next(line for line in first.splitlines() if line.startswith("secrets:"))
    assert "edge_host_token stands in the user-data on the ISO (mode 0600) and nowhere else; " in line
    assert "user_password and luet_auth stand nowhere; 4 images, " in line
    iso = leaky.result("leaky", "palette-edge-installer.iso")
    assert TOKEN in iso_text(iso, "edgebuild/boot-tree:leaky", "/files-iso/config.yaml")
    assert iso.stat().st_mode & 0o077 == 0
    again = leaky.call("build-all-images", "--env", "leaky", "--again", env=ENVIRONMENT)
    assert "looking for secrets" not in again.stderr  # nothing is new
    assert line.rpartition(", ")[0] in again.stdout  # and one more log
    other = leaky.call("build-all-images", "--env", "leaky", env={**ENVIRONMENT, "EDGE_HOST_TOKEN": "another-token"})
    assert "looking for secrets" in other.stderr  # for this one nothing was searched yet
    memory = (leaky.root / "build/.cache/scan/searched.json").read_text()
    hides(memory)
    key = leaky.root / "build/.cache/keyed"
    assert key.stat().st_mode & 0o077 == 0
    assert not list(Path("/tmp").glob("edgebuild-*/user-data"))


def test_what_other_programs_are_told(leaky: Workspace, tmp_path: Path) -> None:
    """No secret in an argument or a variable of docker's, but the build secret in that of the one call."""
    docker, told = tmp_path / "bin/docker", tmp_path / "told"
    told.mkdir()
    docker.parent.mkdir()
    real = shutil.which("docker")
    docker.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{told}/$$"\nenv > "{told}/$$.env"\nexec {real} "$@"\n')
    docker.chmod(0o755)
    path = {"PATH": f"{docker.parent}:{os.environ['PATH']}"}
    leaky.call("build-all-images", "--env", "leaky", "--again", env={**ENVIRONMENT, **path})
    arguments = {file.stem: file.read_text() for file in told.glob("*") if file.suffix != ".env"}
    assert any("bake" in text for text in arguments.values())
    assert any("/site/user-data" in text for text in arguments.values())
    hides("".join(arguments.values()))
    for name, text in arguments.items():
        environment = (told / f"{name}.env").read_text()
        if "bake\n" in text:
            assert LOGIN in environment
            environment = environment.replace(LOGIN, "")
        hides(environment)


# From here on the engine's cache holds the token too, and only builds that fail come.


def test_planted_in_an_image(clean: Workspace) -> None:
    """Layers, one of which a later one hides; configuration; history; cache."""
    wrapped = base64.encodebytes(b"x" * 40 + PASSWORD.encode() + b"x" * 40).decode()
    clean.write("planted/deleted", f"x\nx {json.dumps(PASSWORD)}")
    clean.write("planted/folder/wrapped", wrapped)
    clean.write("planted/query", urllib.parse.urlencode({"a": PASSWORD}))
    clean.write("planted/shell", f"\0{shlex.quote(PASSWORD)}")
    (clean.root / f"planted/{TOKEN}").symlink_to(f"/etc/{LOGIN}")
    clean.write("planted/login", f'{{"password": "{LOGIN}"}}')
    lines = f"COPY planted/ /opt/planted/\nRUN rm /opt/planted/deleted\nENV PLANTED={TOKEN}\nLABEL planted={TOKEN}\n"
    lines += f"RUN echo {base64.b64encode(TOKEN.encode()).decode()} > /dev/null\n"
    own = clean.root / "Dockerfile.j2"
    own.write_text(own.read_text().replace(OWN_STAGE, OWN_STAGE + lines))
    named = finds(clean, *BUILD_PROVIDER)
    shown = next(line.partition(": image ")[2].partition(",")[0] for line in named if ": image " in line)
    image, id_ = f"image {shown}", shown.partition("(")[2].rstrip(")")
    assert shown.startswith(PROVIDER)
    layers = run(["docker", "image", "inspect", "--format", "{{json .RootFS.Layers}}", id_]).stdout
    count = len(json.loads(layers))
    place = next(line for line in named if "/opt/planted/deleted" in line)
    number = place.partition(", layer ")[2].split()[0]
    assert json.loads(layers)[int(number) - 1] in place
    assert int(number) < count
    for expected in (
        f"secrets.user_password, escaped: {image}, layer {number} of {count} (",
        "/opt/planted/deleted, byte 5",
        "secrets.user_password, in base64: ",
        "/opt/planted/folder/wrapped, byte ",
        "secrets.user_password, URL-escaped: ",
        "/opt/planted/query, byte 2",
        "/opt/planted/shell, byte ",
        "/opt/planted/***, its name",
        "/opt/planted/***, its target of the link",
        "secrets.luet_auth, as it is: ",
        "/opt/planted/login, byte 14",
        f"secrets.edge_host_token, as it is: {image}, configuration, Config, Env ",
        f"secrets.edge_host_token, as it is: {image}, configuration, Config, Labels, planted",
        f"secrets.edge_host_token, as it is: {image}, history entry ",
        f"secrets.edge_host_token, in base64: {image}, history entry ",
        "secrets.edge_host_token, in base64: build cache, record ",
        "secrets.edge_host_token, as it is: build/leaky/inputs/Dockerfile, line ",
        "secrets.edge_host_token, as it is: Dockerfile.j2, line ",
    ):
        assert any(expected in line for line in named), (expected, named)
    check_saved(id_, named)
    assert finds(clean, *BUILD_PROVIDER) == named  # what was found is not forgotten


def check_saved(id_: str, named: list[str]) -> None:
    """An engine that does not tell where its layers are says the same."""
    needles = Needles(
        {"secrets.edge_host_token": TOKEN, "secrets.user_password": PASSWORD, "secrets.luet_auth": LOGIN}
    )
    facts = imagescan.inspect({PROVIDER: id_})[0].facts
    image = imagescan.Image(PROVIDER, facts["Id"], {**facts, "GraphDriver": None})
    saved = imagescan.search_layers([image], image.layers, needles)
    lines = {f"{find.key}, {find.form}: {find.where}".replace(TOKEN, "***") for find in saved}
    assert lines == {line for line in named if ", layer " in line}


def test_planted_in_files(clean: Workspace) -> None:
    """The overlay, the configuration, a log, the boot menu."""
    clean.write("overlay/files/etc/planted", f"token={TOKEN}\n")
    log = clean.write("build/leaky/logs/planted.log", f"one\ntwo {base64.b64encode(LOGIN.encode()).decode()}\n")
    config = clean.root / "config/leaky.yaml"
    config.write_text(config.read_text() + f"iso:\n  kernel_arguments: [token={TOKEN}]\n")
    named = finds(clean, "iso-image", "--env", "leaky")
    for expected in (
        "secrets.edge_host_token, as it is: image palette-installer-image:v4.9.38-leaky (",
        "/etc/planted, byte 6",
        "secrets.luet_auth, in base64: build/leaky/logs/planted.log, line 2",
        "secrets.edge_host_token, as it is: build/leaky/inputs/grub.cfg, line ",
        "secrets.edge_host_token, as it is: config/leaky.yaml, line ",
    ):
        assert any(expected in line for line in named), (expected, named)
    assert log.exists()
    (clean.root / "overlay/files/etc/planted").unlink()
    log.unlink()


def test_planted_on_the_iso(clean: Workspace) -> None:
    """In a file beside user-data; in user-data itself it belongs."""
    needles = Needles({"secrets.edge_host_token": TOKEN})
    iso = clean.result("leaky", "palette-edge-installer.iso").resolve()
    assert not list(scan._search_iso(iso, "x.iso", needles, overlay=clean.root / "overlay/files-iso"))
    content = clean.write("overlay/files-iso/opt/spectrocloud/content/own", f"token={TOKEN}\n")
    clean.write("overlay/files-iso/planted", f"token={TOKEN}\n")
    named = [line for line in finds(clean, "iso", "--env", "leaky") if "build cache" not in line]  # of tests before
    iso_name = "build/leaky/palette-edge-installer.iso"
    assert named == [
        f"secrets.edge_host_token, as it is: {iso_name}, /opt/spectrocloud/content/own, byte 6",
        f"secrets.edge_host_token, as it is: {iso_name}, /planted, byte 6",
    ]
    content.unlink()
    (clean.root / "overlay/files-iso/planted").unlink()


def test_a_step_that_prints_a_build_secret(clean: Workspace) -> None:
    """As a whole, in pieces, and without an end of its line: in the log, on a terminal, in the error."""
    script = "f=/run/secrets/luet_auth; cat $f; p=$(sed -n s/.*password:.//p $f); echo one $p; echo $p | base64"
    script += '; printf "two %.9s" "$p"; sleep 1; echo "${p#?????????}"; printf "three $p"; exit 7'
    own = clean.root / "Dockerfile.j2"
    line = f"RUN --mount=type=secret,id=luet_auth {script}\n"
    own.write_text(own.read_text().replace(OWN_STAGE, OWN_STAGE + line))
    for shown in (clean.call(*BUILD_PROVIDER, env=ENVIRONMENT, check=False), on_a_terminal(clean, BUILD_PROVIDER)):
        assert shown.returncode == 1, shown.stdout + shown.stderr
        hides(shown.stdout + shown.stderr)
        for expected in ("one ***", "two ***", "three ***", "a build step failed"):
            assert expected in shown.stdout + shown.stderr
    logs = [file.read_text() for file in clean.result("leaky", "logs").iterdir()]
    hides("".join(logs))
    assert sum("two ***" in text for text in logs) == 2


def on_a_terminal(workspace: Workspace, arguments: list[str]) -> Result:
    """The task as a person sees it, with the live table."""
    argv = [sys.executable, "-m", "invoke", "--search-root", str(workspace.root), *arguments]
    own, terminal = pty.openpty()
    with process(
        argv, cwd=workspace.root, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal
    ) as child:
        os.close(terminal)
        text = b""
        while True:
            try:
                data = os.read(own, 1 << 16)
            except OSError:  # the other end is closed
                break
            text += data
        child.wait()
    os.close(own)
    assert b"Traceback" not in text
    return Result(tuple(argv), child.returncode, text.decode(), "")


def test_what_a_booting_system_prints(debian_image: str, tmp_path: Path) -> None:
    """Log and error of the boot check, with a program in QEMU's place: a line in two pieces, and one without end."""
    script = f"printf 'one {TOKEN[:9]}'; sleep 1; printf '{TOKEN[9:]}\\r\\ntwo {TOKEN}'"
    recipe = f"FROM {debian_image}\nRUN printf '%s' {shlex.quote(script)} > /usr/bin/qemu-system-x86_64"
    recipe += " && chmod 755 /usr/bin/qemu-system-x86_64 && sed -i '1i #!/bin/sh' /usr/bin/qemu-system-x86_64\n"
    run(["docker", "build", "--quiet", "--tag", "edgebuild-tests/prints", "-"], stdin=recipe)
    (tmp_path / "iso").touch()
    request = BootRequest(
        iso=tmp_path / "iso",
        arch="amd64",
        firmware="bios",
        media="cd",
        image="edgebuild-tests/prints",
        log=tmp_path / "log",
        screenshot=tmp_path / "screen.png",
        user="kairos",
        password="kairos",
        stop=threading.Event(),
        timeout=30,
    )
    hidden.add("secrets.edge_host_token", TOKEN)
    try:
        with pytest.raises(VerificationError) as caught:
            boot_iso(request, say=print)
    finally:
        hidden.clear()
        run(["docker", "image", "rm", "edgebuild-tests/prints"])
    assert (tmp_path / "log").read_text() == "one ***\ntwo ***"
    assert (tmp_path / "log").stat().st_mode & 0o077 == 0
    assert "two ***" in str(caught.value)
    hides(str(caught.value))
