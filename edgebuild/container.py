"""The containers that run our own tools: with the least that a process can have. Pure but for who asks."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

LABEL = "io.edgebuild=run"  # what a killed run left is found by it
LEAST = (
    *("docker", "run", "--rm"),
    *("--pull", "never"),  # the image was made here; one of that name on Docker Hub is somebody else's
    *("--network", "none", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only"),
)


def container_argv(
    image: str,
    command: Sequence[str],
    *,
    name: str,
    read: Mapping[str, Path],
    write: Mapping[str, Path] | None = None,
    options: Sequence[str] = (),
) -> list[str]:
    """`docker run` of a local image as the user who asks: no network, no capability, nothing writable but /tmp.

    `read` and `write` map paths in the container to paths on this machine.
    """
    argv = [*LEAST, "--name", name, "--label", LABEL, "--log-driver", "none"]
    argv += ["--tmpfs", "/tmp:mode=1777"]  # noqa: S108 - the container's own
    argv += ["--security-opt", "label=disable"]  # SELinux would hide the user's files, and relabelling change them
    argv += ["--user", f"{os.getuid()}:{os.getgid()}"]
    if os.getuid() == 0:
        argv += ["--cap-add", "DAC_READ_SEARCH"]  # as outside, root reads a file that is somebody else's
    argv += options
    for target, source in read.items():
        argv += ["--mount", f"{_bind(source, target)},readonly"]
    for target, source in (write or {}).items():
        argv += ["--mount", _bind(source, target)]
    return [*argv, image, *command]


def image_argv(image: str, script: str) -> list[str]:
    """`docker run` of a shell script in an image that was built here: as its root, with the least rights."""
    argv = [*LEAST, "--tmpfs", "/tmp:exec"]  # noqa: S108 - lsinitrd's
    return [*argv, "--user", "0:0", "--entrypoint", "/bin/sh", image, "-c", script]


def _bind(source: Path, target: str) -> str:
    """One bind for --mount, which is a line of CSV: a path may hold commas and quotes."""
    quoted = str(source).replace('"', '""')
    return f'type=bind,"source={quoted}",target={target}'
