"""This machine: its distribution, its package sources, and installing from them with consent."""

import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgebuild.errors import ToolError
from edgebuild.run import CommandFailed, run

Say = Callable[[str], None]
Ask = Callable[[str], bool]


@dataclass(frozen=True)
class AptSource:
    """One line or stanza of apt's sources: where packages come from. Paths of keyrings may be empty."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""


def parse_os_release(text: str) -> dict[str, str]:
    """The KEY="value" lines of /etc/os-release."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}


def parse_apt_sources(text: str) -> list[AptSource]:
    """Sources in either form: deb822 stanzas, or one `deb` line each. Other text gives nothing."""
    found = []
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        for line in stanza.splitlines():
            if line.lstrip().startswith("#"):
                continue
            if match := re.match(r"deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+(.*)", line.strip()):
                options = dict(option.partition("=")[::2] for option in (match[1] or "").split())
                found.append(AptSource(match[2], (match[3],), tuple(match[4].split()), options.get("signed-by", "")))
            elif match := re.match(r"([A-Za-z-]+):\s*(.*)", line):
                fields[match[1].lower()] = match[2].strip()
        if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes").lower() != "no":
            found += [
                AptSource(
                    uri,
                    tuple(fields.get("suites", "").split()),
                    tuple(fields.get("components", "").split()),
                    fields.get("signed-by", ""),
                )
                for uri in fields.get("uris", "").split()
            ]
    return found


def mirror_of(sources: Sequence[AptSource], codename: str) -> AptSource | None:
    """The source that this machine takes its own suite from: other suites of the same archive are there too."""
    return next((source for source in sources if codename in source.suites and "main" in source.components), None)


def read_sources(root: Path = Path("/")) -> list[AptSource]:
    """All apt sources of this machine."""
    folder = root / "etc/apt"
    files = [folder / "sources.list", *sorted(folder.glob("sources.list.d/*.list"))]
    files += sorted(folder.glob("sources.list.d/*.sources"))
    return [source for file in files if file.is_file() for source in parse_apt_sources(file.read_text())]


def read_os_release(root: Path = Path("/")) -> dict[str, str]:
    """What distribution this is; nothing when the file is missing."""
    file = root / "etc/os-release"
    return parse_os_release(file.read_text(encoding="utf-8")) if file.is_file() else {}


@dataclass(frozen=True)
class Consent:
    """Who decides about changes to this machine: the person on the terminal, root without one, or nobody."""

    say: Say
    ask: Ask | None
    environ: Mapping[str, str]

    def obtain(self, what: str, commands: Sequence[Sequence[str]], *, problem: str) -> None:
        """Return when `what` may be done; raise ToolError with the commands to type otherwise."""
        typed = "\n        ".join(shlex.join(command) for command in commands)
        refusal = ToolError(problem, hint=f"type, as root:\n        {typed}")
        if self.environ.get("EDGEBUILD_ENGINE") == "never":
            raise refusal
        if self.ask is not None:
            if not self.ask(f"{problem}. {what}?"):
                raise refusal
        elif os.geteuid() != 0:
            raise refusal
        else:
            self.say(f"{problem}: unattended and root, so: {what[0].lower()}{what[1:]}")


def as_root(argv: Sequence[str]) -> list[str]:
    """The command with the rights of root."""
    return list(argv) if os.geteuid() == 0 else ["sudo", *argv]


def install_argv(packages: Sequence[str]) -> list[str]:
    """One apt-get call that asks nothing."""
    return ["apt-get", "install", "--yes", "--no-install-recommends", *packages]


def install(packages: Sequence[str], why: str, consent: Consent) -> None:
    """Install packages of the distribution, with consent. Raises ToolError."""
    commands = [["apt-get", "update"], install_argv(packages)]
    if not Path("/usr/bin/apt-get").exists():
        raise ToolError(f"{why}, and this machine has no apt-get", hint=f"install: {' '.join(packages)}")
    consent.obtain(f"Install {' '.join(packages)} from the distribution", commands, problem=why)
    run_as_root(commands, consent.say)


def run_as_root(commands: Sequence[Sequence[str]], say: Say) -> None:
    """Run each command, saying which. Raises ToolError with what it printed."""
    for command in commands:
        argv = as_root(command)
        say("+ " + shlex.join(argv))
        try:
            run(argv, env={"DEBIAN_FRONTEND": "noninteractive"})
        except CommandFailed as error:
            raise ToolError(str(error)) from error
