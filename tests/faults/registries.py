"""A registry that refuses, breaks off, says nothing, or holds something else: a proxy in front of the real one."""

import threading
from pathlib import Path

from tests.conftest import Workspace
from tests.faults.kills import change
from tests.faults.suite import BUILD, ENVIRONMENT, Suite, call, prepare, refused
from tests.registry_server import STALL, Fault, Proxy, faulty_proxy, registry_server

PUSH = ("push", "--env", ENVIRONMENT)
UPLOAD, MANIFEST = ("POST", "/blobs/uploads/"), ("PUT", "/manifests/")
ALWAYS = 1000
# What goes wrong with a push, and what its error says; nothing where trying again is enough.
PUSHES = {
    "registry answers 401 to a push": (Fault(*UPLOAD, 401, ALWAYS), "docker login"),
    "registry answers 403 to a push": (Fault(*UPLOAD, 403, ALWAYS), "docker login"),
    "registry answers 404 to a push": (Fault(*UPLOAD, 404, ALWAYS), "check image.registry and image.repository"),
    "registry answers 429 to a push, twice": (Fault(*MANIFEST, 429, 2), ""),
    "registry answers 500 to a push, always": (Fault(*MANIFEST, 500, ALWAYS), "push again"),
    "registry cuts the connection in a blob of a push": (Fault("PATCH", "/blobs/uploads/", 0, 1), ""),
    "registry stalls before a blob of a push": (Fault(*UPLOAD, STALL, ALWAYS), "the registry stalls"),
    "registry stalls after the blobs of a push": (Fault(*MANIFEST, STALL, ALWAYS), "the registry stalls"),
    "registry shows another digest after a push": (
        Fault("HEAD", "/manifests/", 200, ALWAYS, digest="sha256:" + "0" * 64),
        "but the registry has",
    ),
}
# The same for a pull; with the exit code.
PULLS = {
    "registry answers 401 to a pull": (Fault("HEAD", "/manifests/", 401, ALWAYS), 4, "the registry wants a login"),
    "registry answers 403 to a pull": (Fault("HEAD", "/manifests/", 403, ALWAYS), 4, "the registry wants a login"),
    "registry answers 404 to a pull": (Fault("HEAD", "/manifests/", 404, ALWAYS), 1, "does not exist"),
    "registry answers 429 to a pull": (Fault("HEAD", "/manifests/", 429, ALWAYS), 4, "is out of order"),
    "registry answers 500 to a pull": (Fault("HEAD", "/manifests/", 500, ALWAYS), 4, "is out of order"),
}


def set_right(proxy: Proxy) -> None:
    """The registry works again; what it kept waiting is let go."""
    proxy.faults.clear()
    proxy.ended.set()
    proxy.ended = threading.Event()


def pushes(suite: Suite, folder: Path) -> None:
    """All faults of a push, each with new images, for what is there is skipped."""
    with registry_server(folder / "registry") as registry, faulty_proxy(registry) as proxy:
        workspace = prepare(folder / "repository")
        file = workspace.root / f"config/{ENVIRONMENT}.yaml"
        file.write_text(file.read_text().replace("registry: ttl.sh", f"registry: {proxy.address}"))
        try:
            workspace.call(*BUILD)
            for number, (name, (fault, says)) in enumerate(PUSHES.items()):

                def provoke(fault: Fault = fault, says: str = says, number: int = number) -> str:
                    arguments = change(workspace, 100 + number)[1:]
                    workspace.call("build-provider-images", *arguments)
                    proxy.faults.append(fault)
                    patience = ("--set", "push.stall_seconds=5") if fault.status == STALL else ()
                    try:
                        result = call(workspace, *PUSH, *patience)
                    finally:
                        set_right(proxy)
                    if not says:
                        assert result.returncode == 0, result.stderr
                        assert fault.times == 0
                        return "tried again, and pushed"
                    return refused(result, 4, says)

                suite.case(name, provoke, workspace, plain=PUSH)
        finally:
            workspace.call("clean", "--env", ENVIRONMENT)


def pulls(suite: Suite, workspace: Workspace, folder: Path) -> None:
    """Faults while an upstream image is looked up."""
    with registry_server(folder / "registry") as registry, faulty_proxy(registry) as proxy:
        for name, (fault, code, says) in PULLS.items():

            def provoke(fault: Fault = fault, code: int = code, says: str = says) -> str:
                proxy.faults.append(fault)
                try:
                    base = ("--set", f"os.base_image={proxy.address}/upstream/base:1")
                    return refused(call(workspace, "base-image", "--env", "basic", *base), code, says)
                finally:
                    set_right(proxy)

            suite.case(name, provoke, workspace)
