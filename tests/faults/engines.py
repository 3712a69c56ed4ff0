"""An engine that is killed, whose disk runs full, or whose storage rots; it is our own."""

import json
from collections.abc import Callable
from pathlib import Path

from edgebuild.run import run
from tests.conftest import Workspace
from tests.faults.damage import halve
from tests.faults.disks import FULL, as_soon_as
from tests.faults.machine import Engine, empty, fill, own_engine
from tests.faults.suite import AGAIN, BUILD, ENVIRONMENT, Suite, call, refused, results_of

LONG = "\nRUN echo the-step-runs && sleep 300\n"
TREE = "boot-tree/rootfs.squashfs"
LARGE = "\nRUN head -c 700M /dev/urandom > /opt/large\n"


def load(workspace: Workspace, engine: Engine) -> None:
    """Our engine has no network: it gets the images that packages would be installed in, and stages that stand on
    them."""
    kinds = {each.kind: each.digest for each in results_of(workspace).artifacts()}
    names = {"base": kinds["installer-image"], "tools": kinds["boot-tree"]}
    script = f"docker save {' '.join(names.values())} | DOCKER_HOST={engine.env['DOCKER_HOST']} docker load"
    run(["sh", "-c", script])
    for name, digest in names.items():
        run(["docker", "tag", digest, f"edgebuild-faults/{name}:1"], env=engine.env)
    pipeline = workspace.root / "Dockerfile.j2"
    text = pipeline.read_text()
    text = text.replace('{% include "debian-bootstrap.j2" %}', "").replace('{% include "tools.j2" %}', "")
    text = text.replace("FROM minbase AS upstream-base", "FROM edgebuild-faults/base:1 AS upstream-base")
    head, _, rest = text.partition('FROM {{ "minbase" if')
    tail = rest.partition("\n")[2]
    text = f"{head}FROM edgebuild-faults/tools:1 AS tools\nRUN rm -r /boot-tree /boot-tree.sha256\n{tail}"
    pipeline.write_text(text)


def engines(suite: Suite, workspace: Workspace) -> None:
    """All that is done to an engine; the workspace builds in ours afterwards."""
    with own_engine("9G") as engine:
        load(workspace, engine)
        workspace.call(*BUILD, env=engine.env)

        def during(lines: str, says: str, action: Callable[[], None], code: int, *expected: str) -> str:
            """A build with further lines; the action comes as soon as the log says so."""
            pipeline = workspace.root / "Dockerfile.j2"
            before = pipeline.read_text()
            pipeline.write_text(before + lines)
            logs = results_of(workspace).logs
            old = set(logs.iterdir())

            def said() -> bool:
                return any(says in path.read_text() for path in set(logs.iterdir()) - old)

            try:
                with as_soon_as(said, action):
                    result = call(workspace, *BUILD, env=engine.env)
            finally:
                pipeline.write_text(before)
            return refused(result, code, *expected)

        def killed() -> str:
            outcome = during(LONG, "the-step-runs\n", engine.kill, 3, "the engine went away during the build")
            engine.start()
            return outcome

        def full_in_a_step() -> str:
            outcome = during(LONG, "the-step-runs\n", lambda: fill(engine.data), 1, *FULL)
            empty(engine.data)
            return outcome

        def full_in_the_export() -> str:
            outcome = during(LARGE, "exporting", lambda: fill(engine.data), 1, *FULL)
            empty(engine.data)
            return outcome

        suite.case("SIGKILL of dockerd in a build step", killed, workspace, env=engine.env)
        suite.case("engine's disk full in a build step", full_in_a_step, workspace, env=engine.env)
        suite.case("engine's disk full while images are exported", full_in_the_export, workspace, env=engine.env)
        suite.case("truncated boot tree in the engine", lambda: rotten(workspace, engine), workspace, env=engine.env)
        workspace.call("clean", "--env", ENVIRONMENT, env=engine.env)


def rotten(workspace: Workspace, engine: Engine) -> str:
    """The root file system of the boot tree loses its end, in the engine's own storage."""
    tree = next(each.digest for each in results_of(workspace).artifacts() if each.kind == "boot-tree")
    layers = json.loads(run(["docker", "image", "inspect", tree], env=engine.env).stdout)[0]["GraphDriver"]["Data"]
    folders = [Path(path) for path in (layers["UpperDir"], *layers["LowerDir"].split(":"))]
    halve(next(path for folder in folders if (path := folder / TREE).exists()))
    result = call(workspace, *AGAIN, env=engine.env)
    assert result.returncode == 0, result.stderr
    assert "the boot tree in the engine is damaged" in result.stderr, result.stderr
    return "said, and made anew in the same run"
