"""The stages of a rendered Dockerfile: what each of them is made of, and which stand on which. Pure."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

HEREDOC = re.compile(r"(?:^|\s)\d*<<-?([\"']?)(\w+)\1(?=\s|$)")  # a word of its own, as BuildKit has it
FLAG = re.compile(r"--([a-z-]+)(?:=(.*))?")
SCRATCH = "scratch"
WHOLE_CONTEXT = "."


@dataclass(frozen=True)
class Stage:
    """One stage: its instructions as they stand, comments left out.

    `parents` are stages that it needs, `images` references that it pulls, `files` paths and globs of the build
    context, `secrets` ids of build secrets.
    """

    name: str
    instructions: tuple[str, ...]
    parents: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()


@dataclass
class _Open:
    """A stage while it is read."""

    name: str
    instructions: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)  # stages or images
    files: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)


def parse_stages(dockerfile: str) -> dict[str, Stage]:
    """Name to stage, in the order of the file. A stage without a name has its number. Pure text, nothing is run."""
    stages: dict[str, Stage] = {}
    opened: _Open | None = None
    shared: list[str] = []  # ARG before the first FROM
    for instruction in instructions(dockerfile):
        word, _, rest = instruction.partition(" ")
        if word.upper() == "FROM":
            if opened:
                stages[opened.name] = _close(opened, stages)
            opened = _begin(rest.split(), str(len(stages)))
            opened.instructions += shared
        if opened is None:
            shared.append(instruction)
            continue
        opened.instructions.append(instruction)
        _read(word.upper(), rest, opened)
    if opened:
        stages[opened.name] = _close(opened, stages)
    return stages


def instructions(dockerfile: str) -> Iterator[str]:
    """The instructions of a Dockerfile, with continued lines and here-documents; comments between them left out."""
    lines = iter(dockerfile.splitlines())
    for line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = [line.strip()]
        while found[-1].endswith("\\"):
            following = next(lines, "")
            if not following.lstrip().startswith("#"):
                found.append(following.rstrip())
        if found[0].split(" ")[0].upper() in {"RUN", "COPY", "ADD"}:
            for _, end in HEREDOC.findall("\n".join(found)):
                for body in lines:
                    found.append(body)
                    if body.strip("\t") == end:
                        break
        yield "\n".join(found)


def _begin(words: Sequence[str], number: str) -> _Open:
    named = [word for word in words if not word.startswith("--")]
    name = named[2].lower() if len(named) > 2 and named[1].upper() == "AS" else number
    return _Open(name, sources=[] if named[0] == SCRATCH else [named[0]])


def _read(word: str, rest: str, stage: _Open) -> None:
    """What an instruction takes from elsewhere."""
    if word not in {"RUN", "COPY", "ADD"}:
        return
    text = rest.partition("<<")[0].replace("\\\n", " ")
    flags, arguments = _flags(text)
    for name, value in flags:
        if name == "mount":
            _mount(dict(part.partition("=")[::2] for part in value.split(",")), stage)
        elif name == "from":
            stage.sources.append(value)
    if word == "RUN" or any(name == "from" for name, _ in flags):
        return
    sources = _arguments(arguments)[:-1] if "<<" not in rest else []
    stage.files += [source for source in sources if not re.match(r"https?://|git@", source)]


def _mount(options: Mapping[str, str], stage: _Open) -> None:
    kind = options.get("type", "bind")
    if "from" in options:
        stage.sources.append(options["from"])
    elif kind == "bind":
        stage.files.append(options.get("source", options.get("src", WHOLE_CONTEXT)))
    elif kind == "secret":
        stage.secrets.append(options.get("id", ""))


def _flags(text: str) -> tuple[list[tuple[str, str]], str]:
    """The leading --name=value flags, and what follows them."""
    found = []
    rest = text.lstrip()
    while match := re.match(r"--[a-z-]+(?:=(?:\"[^\"]*\"|\S)*)?", rest):
        flag = FLAG.fullmatch(match[0])
        if flag:
            found.append((flag[1], (flag[2] or "").strip('"')))
        rest = rest[match.end() :].lstrip()
    return found, rest


def _arguments(text: str) -> list[str]:
    """The words of COPY or ADD, in either form."""
    if text.startswith("["):
        try:
            return [str(word) for word in json.loads(text)]
        except ValueError:
            return []
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _close(opened: _Open, known: Mapping[str, Any]) -> Stage:
    sources = list(dict.fromkeys(opened.sources))
    numbered = list(known)
    names = {source: numbered[int(source)] for source in sources if source.isdigit() and int(source) < len(numbered)}
    names |= {source: source.lower() for source in sources if source.lower() in known}
    return Stage(
        opened.name,
        tuple(opened.instructions),
        parents=tuple(dict.fromkeys(names[source] for source in sources if source in names)),
        images=tuple(source for source in sources if source not in names and source != SCRATCH),
        files=tuple(dict.fromkeys(opened.files)),
        secrets=tuple(dict.fromkeys(opened.secrets)),
    )


def chain(stages: Mapping[str, Stage], *names: str) -> list[str]:
    """These stages and all that they stand on, each after what it needs."""
    found: dict[str, None] = {}

    def visit(name: str) -> None:
        if name in found or name not in stages:
            return
        for parent in stages[name].parents:
            visit(parent)
        found[name] = None

    for name in names:
        visit(name)
    return list(found)
