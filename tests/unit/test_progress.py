"""BuildKit's stream in any cut, and what a failure says."""

import base64
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from edgebuild.bake import BakeRequest, bake_argv, failure
from edgebuild.errors import EdgebuildError
from edgebuild.live import LiveView
from edgebuild.progress import BuildState, Decoder, Step, Written
from edgebuild.view import PlainView

VERTEX = {
    "digest": "sha256:1",
    "name": "[iso-image base-image 2/3] RUN <<'EOF' (# one kernel...)",
    "started": "2026-11-24T10:00:00.123456789Z",
}
DONE = {**VERTEX, "completed": "2026-11-24T10:00:02.123456789Z"}
LOG = {"vertex": "sha256:1", "data": base64.b64encode(b"one\r\ntwo\x1b[31m red\n").decode()}
STREAM = (
    'a line before\n{\n  "vertexes": [\n'
    + json.dumps(VERTEX)
    + "\n]}\n"
    + json.dumps({"logs": [LOG]}, indent=2)
    + "\nERROR: {not json\n{x}\n"
    + json.dumps({"vertexes": [DONE]})
    + "\nlast"
)


def decoded(pieces: list[str]) -> list[object]:
    decoder = Decoder()
    found: list[object] = [part for piece in pieces for part in decoder.feed(piece)]
    return [*found, *decoder.close()]


def test_any_cut_gives_the_same() -> None:
    whole = decoded([STREAM])
    assert [part for part in whole if isinstance(part, str)] == ["a line before", "ERROR: {not json", "{x}", "last"]
    assert [part for part in whole if isinstance(part, dict)] == [
        {"vertexes": [VERTEX]},
        {"logs": [LOG]},
        {"vertexes": [DONE]},
    ]
    for cut in range(len(STREAM)):
        assert decoded([STREAM[:cut], STREAM[cut:]]) == whole


def test_state() -> None:
    state = BuildState()
    list(state.update({"vertexes": [VERTEX]}))
    assert [step.stage for step in state.running()] == ["base-image"]
    events = list(state.update({"logs": [LOG]}))
    assert [event.text for event in events] == ["one", "two red"]  # type: ignore[union-attr]
    list(
        state.update(
            {"vertexes": [DONE, {**DONE, "digest": "sha256:2", "name": DONE["name"].replace("iso", "boot")}]}
        )
    )
    assert state.running() == []
    assert state.seconds("base-image") == 2.0  # bake reports a shared step once for each target
    assert state.steps["sha256:1"].title == "[base-image 2/3] RUN <<'EOF' (# one kernel...)"
    assert state.failed is None


def test_the_step_that_broke_the_build_is_named() -> None:
    state = BuildState()
    canceled = {**DONE, "digest": "sha256:2", "error": "context canceled"}
    list(state.update({"vertexes": [canceled, {**DONE, "error": "exit code: 1"}]}))
    assert state.failed is state.steps["sha256:1"]


METADATA = "[internal] load metadata for quay.io/kairos/x:1"


@pytest.mark.parametrize(
    ("name", "error", "tail", "code", "expected"),
    [
        ("[a 1/1] RUN x", "exit code: 1", ["boom"], 1, ["a build step failed", "step: [a 1/1] RUN x", "boom", "log:"]),
        ("[a 1/1] RUN x", "exit code: 1", ["edgebuild: no zstd here"], 1, ["no zstd here"]),
        (METADATA, "quay.io/kairos/x:1: not found", [], 1, ["quay.io/kairos/x:1 does not exist", "registries.mirrors"]),
        (METADATA, "quay.io/kairos/x:1: no match for platform in manifest", [], 1, ["for this architecture", "os.arch"]),
        (METADATA, "quay.io/kairos/x:1: 401 Unauthorized", [], 4, ["wants a login", "docker login quay.io"]),
        (METADATA, "quay.io/kairos/x:1: dial tcp: connection refused", [], 1, ["cannot be reached", "mirror"]),
        ("[a 1/1] RUN x", "write /x: no space left on device", [], 1, ["the engine's disk is full", "docker builder prune"]),
        ("[a 1/1] RUN x", "rpc error: error reading from server: EOF", [], 3, ["the engine went away", "./inv doctor"]),
        ("[a 1/1] RUN x", "error during connect: Post http://127.0.0.1:40187/grpc: EOF", [], 3, ["the engine went away"]),
        ("[a 1/1] RUN x", "failed to list workers: Unavailable: connection error", [], 3, ["the engine went away"]),
    ],
)  # fmt: skip
def test_failures_say_what_to_do(name: str, error: str, tail: list[str], code: int, expected: list[str]) -> None:
    step = Step(name, error=error)
    step.tail.extend(tail)
    found = failure(step, [], Path("build/x/logs/build.log"))
    assert isinstance(found, EdgebuildError)
    assert found.exit_code == code
    for text in expected:
        assert text in str(found)


def test_bake_argv() -> None:
    request = BakeRequest(
        file=Path("f.json"), targets=("a", "b"), root=Path(), log=Path("l"), metadata=Path("m"), builder="big"
    )
    assert bake_argv(request) == [
        "docker", "buildx", "bake", "--file", "f.json", "--metadata-file", "m", "--progress", "rawjson",
        "--builder", "big", "a", "b",
    ]  # fmt: skip


def test_fresh_stages_stand_in_a_file_of_their_own() -> None:
    """buildx 0.13 takes `--set *.no-cache-filter=...` without a word, and does nothing with it."""
    request = BakeRequest(
        file=Path("f.json"), targets=("a",), root=Path(), log=Path("l"), metadata=Path("x/.m.json"), fresh=("s", "t")
    )
    assert bake_argv(request)[3:7] == ["--file", "f.json", "--file", "x/.m.fresh.json"]
    assert json.loads(request.fresh_text()) == {"target": {"a": {"no-cache-filter": ["s", "t"]}}}


@pytest.mark.parametrize("width", [20, 80, 200])
def test_views(width: int) -> None:
    console = Console(record=True, width=width, markup=False, highlight=False, file=io.StringIO())
    state, said = BuildState(), io.StringIO()
    plain = PlainView(said)
    for status in ({"vertexes": [VERTEX]}, {"vertexes": [DONE]}, {"vertexes": [{**DONE, "digest": "sha256:2"}]}):
        for change in state.update(status):
            plain.change(state, change)  # type: ignore[arg-type]
    assert said.getvalue().count("[base-image 2/3]") == 1
    assert "2.0 s" in said.getvalue()
    live = LiveView.__new__(LiveView)
    live.targets = ["base-image", "iso-image"]
    console.print(live.table(state))
    text = console.export_text()
    assert "base-" in text
    export = {**DONE, "digest": "sha256:3", "name": "[iso-image] exporting to image"}
    list(state.update({"vertexes": [export]}))
    console.print(live.table(state))
    assert "built" in console.export_text() or width < 40
    assert all(len(line) <= width for line in text.splitlines())


def test_an_image_is_told_when_the_engine_has_it() -> None:
    """As the engine's own exporter says it; one that is only begun is not there yet."""
    state, digest = BuildState(), f"sha256:{'ab' * 32}"
    export = {"digest": "sha256:4", "name": "[iso-image] exporting to image", "started": VERTEX["started"]}
    status = {"id": f"writing image {digest}", "vertex": "sha256:4", "current": 0}
    assert not list(state.update({"statuses": [{**status, "completed": DONE["completed"]}]}))
    begun = list(state.update({"vertexes": [export], "statuses": [status]}))
    assert not [each for each in begun if isinstance(each, Written)]
    done = [*state.update({"statuses": [{**status, "completed": DONE["completed"]}, {"id": "naming to x"}]})]
    assert [(each.step.stage, each.digest) for each in done if isinstance(each, Written)] == [("iso-image", digest)]
