"""BuildKit's progress stream, read into the state of each target. Pure."""

import base64
import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

TAIL_LINES = 20
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
STEP = re.compile(r"\[(?:\S+ )?(?P<stage>\S+) +(?P<step>\d+)/(?P<steps>\d+)\] (?P<what>.*)", re.DOTALL)
PULLED = re.compile(r"\] FROM (?P<reference>\S+)@(?P<digest>sha256:[0-9a-f]{64})$")
ASKED = re.compile(
    r"(?:\[internal\] load metadata for |resolve image config for (?:docker-image://)?)(?P<image>\S+)"
    r"|(?:\[[^\]]*\] )?(?:ADD (?:--\S+ )*)?(?P<address>(?:https?|git|ssh)://\S+|git@\S+)"
)
WRITTEN = re.compile(r"writing image (?P<digest>sha256:[0-9a-f]{64})$")
EXPORT = re.compile(r"\[(?P<stage>[^\]\s]+)\] exporting to ")


class Decoder:
    """Cuts a stream of JSON objects, indented or a line each, with other text in between, into its parts."""

    def __init__(self) -> None:
        self._rest = ""
        self._json = json.JSONDecoder()

    def feed(self, text: str) -> Iterator[dict[str, Any] | str]:
        """Complete objects, and complete lines of other text."""
        self._rest += text
        while self._rest:
            if not self._rest.startswith("{"):
                line, end, rest = self._rest.partition("\n")
                if not end:
                    return
                self._rest = rest
                if line.strip():
                    yield line
                continue
            # An object is complete with a closing brace at the start of a line, or at the end of the first line.
            try:
                value, length = self._json.raw_decode(self._rest)
            except json.JSONDecodeError:
                if self._broken() and "\n" in self._rest:
                    line, _, self._rest = self._rest.partition("\n")
                    yield line
                    continue
                return
            self._rest = self._rest[length:].lstrip("\n")
            yield value

    def _broken(self) -> bool:
        """Whether the text starts with a brace but is no object of BuildKit's."""
        second = self._rest[1:].lstrip()[:1]
        return bool(second) and second not in '"}'

    def close(self) -> Iterator[str]:
        """What is left at the end of the stream."""
        if self._rest.strip():
            yield self._rest
        self._rest = ""


@dataclass
class Step:
    """One vertex of the build graph."""

    name: str
    stage: str = ""
    started: datetime | None = None
    completed: datetime | None = None
    cached: bool = False
    error: str = ""
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    unfinished: dict[int, bytes] = field(default_factory=dict, repr=False)  # by stream: a line without its end

    @property
    def key(self) -> str:
        """What the step is, whichever target asked for it: bake reports a shared step once for each target."""
        match = STEP.match(self.name)
        return f"[{match['stage']} {match['step']}/{match['steps']}] {match['what']}" if match else self.name

    @property
    def title(self) -> str:
        """The step in one line: a script's first line stands for all."""
        return " ".join(self.key.partition("\n")[0].split())

    @property
    def seconds(self) -> float:
        if self.started and self.completed:
            return (self.completed - self.started).total_seconds()
        return 0.0


@dataclass(frozen=True)
class Line:
    """One line of a step's output."""

    step: Step
    text: str


@dataclass(frozen=True)
class Change:
    """A step that started, or ended."""

    step: Step


@dataclass(frozen=True)
class Written:
    """An image that an engine's own store has now, by its digest there."""

    step: Step
    digest: str


class BuildState:
    """All steps seen so far, by digest. `redact` takes secrets out of names, errors and whole lines of output."""

    def __init__(self, redact: Callable[[str], str] = str) -> None:
        self.steps: dict[str, Step] = {}
        self._redact = redact

    def update(self, status: dict[str, Any]) -> Iterator[Change | Line | Written]:
        """Take in one status object; yields what is new in it, in order."""
        for vertex in status.get("vertexes") or []:
            name = self._redact(vertex.get("name") or "")
            step = self.steps.setdefault(vertex["digest"], Step(name))
            before = (step.started, step.completed)
            step.name = name or step.name
            if match := STEP.match(step.name) or EXPORT.match(step.name):
                step.stage = match["stage"]
            step.started = _time(vertex.get("started")) or step.started
            step.completed = _time(vertex.get("completed")) or step.completed
            step.cached = bool(vertex.get("cached")) or step.cached
            step.error = self._redact(vertex.get("error") or "") or step.error
            if (step.started, step.completed) != before:
                yield Change(step)
        for each in status.get("statuses") or []:
            written = WRITTEN.match(each.get("id", ""))
            if written and each.get("completed") and each.get("vertex") in self.steps:
                yield Written(self.steps[each["vertex"]], written["digest"])
        for log in status.get("logs") or []:
            log_step = self.steps.get(log.get("vertex", ""))
            if log_step is None:
                continue
            # BuildKit sends what the step's program wrote at once: an end of a line may follow later.
            number = int(log.get("stream") or 0)
            data = log_step.unfinished.pop(number, b"") + base64.b64decode(log.get("data") or "")
            *lines, rest = data.split(b"\n")
            if rest:
                log_step.unfinished[number] = rest
            yield from self._lines(log_step, lines)
        for step in self.steps.values():
            if step.completed and step.unfinished:
                yield from self._rest(step)

    def close(self) -> Iterator[Line]:
        """What is left at the end of the stream: lines without their end."""
        for step in self.steps.values():
            yield from self._rest(step)

    def _rest(self, step: Step) -> Iterator[Line]:
        lines = list(step.unfinished.values())
        step.unfinished.clear()
        yield from self._lines(step, lines)

    def _lines(self, step: Step, lines: Sequence[bytes]) -> Iterator[Line]:
        for line in lines:
            text = line.decode(errors="replace").rstrip().rsplit("\r", 1)[-1]
            text = self._redact(ESCAPES.sub("", text).rstrip())
            step.tail.append(text)
            yield Line(step, text)

    @property
    def failed(self) -> Step | None:
        """The step that broke the build; steps that were only canceled with it do not count."""
        failed = [step for step in self.steps.values() if step.error]
        return next((step for step in failed if "context canceled" not in step.error), failed[0] if failed else None)

    def running(self, stages: set[str] | None = None) -> list[Step]:
        """Steps at work now, oldest first."""
        found = [
            step
            for step in self.steps.values()
            if step.started and not step.completed and (stages is None or step.stage in stages)
        ]
        return sorted(found, key=lambda step: step.started or datetime.min)

    @property
    def upstream(self) -> dict[str, str]:
        """The images that stages stand on, and the digests that their names led to in this build."""
        found = (PULLED.search(step.name) for step in self.steps.values())
        return {match["reference"]: match["digest"] for match in found if match}

    @property
    def asked(self) -> set[str]:
        """Everything outside that BuildKit asked for: images by name, and addresses."""
        found = (ASKED.match(step.name) for step in self.steps.values())
        return {match["image"] or match["address"] for match in found if match} | set(self.upstream)

    def seconds(self, stage: str) -> float:
        """Time spent in the steps of one stage that were not cached."""
        own = {step.key: step.seconds for step in self.steps.values() if step.stage == stage and not step.cached}
        return sum(own.values())

    @property
    def ran(self) -> dict[str, float]:
        """Stage to seconds, of those stages that had anything to do."""
        stages = {step.stage for step in self.steps.values() if step.stage and step.completed and not step.cached}
        return {stage: round(self.seconds(stage), 2) for stage in stages}


def _time(text: str | None) -> datetime | None:
    if not text or text.startswith("0001-"):
        return None
    # BuildKit gives nanoseconds; Python reads microseconds.
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text).replace("Z", "+00:00"))
