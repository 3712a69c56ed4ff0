"""One call of `docker buildx bake` builds everything asked for; its progress is read here."""

import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from edgebuild.errors import BuildError, EdgebuildError, RegistryError, ToolError
from edgebuild.progress import BuildState, Decoder, Line, Step, Written
from edgebuild.run import process
from edgebuild.secrets import redact
from edgebuild.view import View

ALL = ("*",)
Told = Callable[[str, str], object]  # of a target and the digest of its image
GONE = (
    "Cannot connect to the Docker daemon|error during connect|error reading from server|transport is closing|EOF|"
    "code = Unavailable|Unavailable: connection error|failed to list workers|no builder .* found"
)


@dataclass(frozen=True, kw_only=True)
class BakeRequest:
    """`env` holds the values of build secrets.

    `fresh` are stages to solve anew whatever is cached, or ALL. `tags` gives targets another name than the file does.
    `docker` is the docker command that reaches the engine, `settings` are further values of --set.
    """

    file: Path
    targets: tuple[str, ...]
    root: Path
    log: Path
    metadata: Path
    docker: tuple[str, ...] = ("docker",)
    builder: str = ""
    settings: Sequence[str] = ()
    fresh: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def names_fresh(self) -> bool:
        """Whether some stages are to be solved anew, and not all."""
        return bool(self.fresh) and self.fresh != ALL

    @property
    def fresh_file(self) -> Path:
        """A second bake file that names the fresh stages: buildx 0.13 takes no `--set *.no-cache-filter`."""
        return self.metadata.with_suffix(".fresh.json")

    def fresh_text(self) -> str:
        return json.dumps({"target": {name: {"no-cache-filter": list(self.fresh)} for name in self.targets}})


@dataclass(frozen=True)
class BakeResult:
    """Per target: the image's digest as the engine knows it, and the seconds spent in its own steps.

    `upstream` has the digest of each image that was built on, `stages` the seconds of each stage that ran,
    `asked` all that BuildKit asked for outside.
    `stored` is the digest under which an engine with a containerd image store keeps the image.
    """

    digests: Mapping[str, str]
    seconds: Mapping[str, float]
    upstream: Mapping[str, str]
    stages: Mapping[str, float] = field(default_factory=dict)
    asked: frozenset[str] = frozenset()
    stored: Mapping[str, str] = field(default_factory=dict)


def bake_argv(request: BakeRequest) -> list[str]:
    """The whole call."""
    argv = [*request.docker, "buildx", "bake", "--file", str(request.file)]
    if request.names_fresh:
        argv += ["--file", str(request.fresh_file)]
    argv += ["--metadata-file", str(request.metadata)]
    argv += ["--progress", "rawjson"]
    if request.builder:
        argv += ["--builder", request.builder]
    if request.fresh == ALL:
        argv += ["--no-cache"]
    for target, tag in request.tags.items():
        argv += ["--set", f"{target}.tags={tag}"]
    for setting in request.settings:
        argv += ["--set", setting]
    return [*argv, *request.targets]


def unheard(*_: str) -> None:
    """Who needs no telling."""


def bake(request: BakeRequest, view: View, *, written: Told = unheard) -> BakeResult:
    """Build. Raises BuildError, RegistryError or ToolError with the failing step and its last lines.

    `written` is told target and digest of each image that the engine has, while others are still built.
    """
    state = BuildState(redact)
    other: list[str] = []
    request.log.parent.mkdir(parents=True, exist_ok=True)
    request.log.touch(mode=0o600)
    if request.names_fresh:
        request.fresh_file.write_text(request.fresh_text(), encoding="utf-8")
    with (
        # buildx leaves a folder for each target there: https://github.com/docker/buildx/issues/3117
        tempfile.TemporaryDirectory(prefix="edgebuild-") as scratch,
        request.log.open("w", encoding="utf-8") as log,
        process(
            bake_argv(request),
            cwd=request.root,
            env={**request.env, "BUILDX_NO_DEFAULT_ATTESTATIONS": "1", "TMPDIR": scratch},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as child,
    ):
        decoder = Decoder()
        for text in iter(child.stderr.readline, ""):  # type: ignore[union-attr]
            for part in decoder.feed(text):
                _take(part, state, other, view, log, written)
        for part in decoder.close():
            _take(part, state, other, view, log, written)
        for line in state.close():
            _write(line, log)
        code = child.wait()
    request.fresh_file.unlink(missing_ok=True)
    if code:
        raise failure(state.failed, other, request.log)
    seconds = {target: state.seconds(target) for target in request.targets}
    digests, stored = _digests(request.metadata)
    return BakeResult(digests, seconds, state.upstream, state.ran, frozenset(state.asked), stored)


def _write(line: Line, log: IO[str]) -> None:
    log.write(f"{line.step.stage or 'build'}: {line.text}\n")


def _take(part: object, state: BuildState, other: list[str], view: View, log: IO[str], written: Told) -> None:
    if not isinstance(part, dict):
        other.append(redact(str(part)))
        log.write(other[-1] + "\n")
        return
    for event in state.update(part):
        if isinstance(event, Line):
            _write(event, log)
        elif isinstance(event, Written):
            written(event.step.stage, event.digest)
        else:
            step = event.step
            outcome = "starts"
            if step.completed:
                outcome = (
                    f"failed: {step.error}" if step.error else "cached" if step.cached else f"{step.seconds:.1f} s"
                )
            log.write(f"--- {step.title} --- {outcome.splitlines()[0]}\n")
            view.change(state, event)
    log.flush()


def _digests(metadata: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Of each target: the digest of its configuration where there is one, and that of the image."""
    read = json.loads(metadata.read_text(encoding="utf-8"))
    metadata.unlink()
    entries = {
        name: each for name, each in read.items() if isinstance(each, dict) and "containerimage.digest" in each
    }
    stored = {name: str(each["containerimage.digest"]) for name, each in entries.items()}
    return {name: each.get("containerimage.config.digest") or stored[name] for name, each in entries.items()}, stored


def failure(step: Step | None, other: Sequence[str], log: Path) -> EdgebuildError:
    """What went wrong, for the person: the step, its last lines, the log, and what to do."""
    error = _failure(step, other, log)
    if step and step.stage and not isinstance(error, (ToolError, DiskFull)):
        error.stage = step.stage
    return error


class DiskFull(BuildError):
    """The engine's disk cannot take what was built: what else was asked for would fail too."""


def _failure(step: Step | None, other: Sequence[str], log: Path) -> EdgebuildError:
    error = (step.error if step else "") or "\n".join(other[-5:]) or "buildx ended without a word"
    tail = list(step.tail) if step else []
    own = [line.partition("edgebuild: ")[2] for line in tail if "edgebuild: " in line and "warning:" not in line]
    where = f"\n  step: {step.title}" if step else ""
    lines = "".join(f"\n    {line}" for line in tail)
    shown = f"{where}{lines}\n  log:  {log}"
    reference = re.search(r"\b([a-z0-9.-]+(?::\d+)?(?:/[\w.-]+)+(?::[\w.-]+)?)(?:@sha256:\w+)?: ", error)
    image = re.sub(r"/v2/(.*)/manifests/", r"/\1:", reference[1]) if reference else "an upstream image"
    if re.search(r"no space left on device", error + "\n".join(tail)):
        return DiskFull(f"the engine's disk is full{shown}", hint="docker system df; docker builder prune")
    if own:
        return BuildError(f"{own[-1]}{shown}")
    if re.search(r"\b(401|403)\b|unauthorized|authorization failed|access denied|denied:", error):
        host = image.split("/")[0]
        return RegistryError(f"{image}: the registry wants a login{shown}", hint=f"docker login {host}")
    if (
        re.search(r"\b(429|5\d\d) |too ?many ?requests", error, re.IGNORECASE)
        and step
        and "load metadata" in step.title
    ):
        return RegistryError(
            f"{image}: the registry is out of order, or has been asked too often{shown}",
            hint="build again later; a login raises most limits, and registries.mirrors names another registry",
        )
    if "exec format error" in error + "\n".join(tail):
        return BuildError(
            f"a program of the base image is for another architecture{shown}",
            hint="set os.arch, or another base image",
        )
    if re.search(r"no match for platform|does not match the specified platform|InvalidBaseImagePlatform", error):
        return BuildError(
            f"{image} does not exist for this architecture{shown}", hint="set os.arch, or another base image"
        )
    if re.search(r"not found|manifest unknown|does not exist", error) and step and "load metadata" in step.title:
        return BuildError(
            f"{image} does not exist{shown}", hint="check release, os.version and registries.mirrors: ./inv plan"
        )
    if re.search(r"connection refused|no such host|i/o timeout|deadline exceeded|server misbehaving", error) and (
        step and "load metadata" in step.title
    ):
        return BuildError(
            f"{image}: its registry cannot be reached{shown}\n  {error.splitlines()[-1]}",
            hint="without internet, name a mirror in registries.mirrors; behind a proxy, set proxy.https",
        )
    if re.search(GONE, error):
        return ToolError(f"the engine went away during the build{shown}", hint="./inv doctor, then build again")
    if step and tail:
        return BuildError(f"a build step failed{shown}")
    return BuildError(f"the build failed: {error.splitlines()[-1]}{shown}")
