"""Values, quoted for where they land: shell, Dockerfile, boot menu, YAML, bake file. Pure.

Each function raises ValueError for a text that cannot stand there in any quoting.
"""

import json
import re
import shlex
from typing import Any

import yaml

NO_UTF_8 = re.compile(r"[\ud800-\udfff]")  # how Python holds bytes that are no text
ENDS_A_LINE = re.compile(r"[\0\r\n\ud800-\udfff]")
PLAIN_FOR_GRUB = re.compile(r"[A-Za-z0-9_.,:=/@+%-]+")


def _one_line(text: str) -> str:
    text = str(text)  # what is undefined in a template says so here
    if ENDS_A_LINE.search(text):
        raise ValueError(f"{text!a} cannot stand in one line of text")
    return text


def shell(text: str) -> str:
    """One word of a shell's command line, in one line: it may stand in a script inside a Dockerfile."""
    return shlex.quote(_one_line(text))


def dockerfile_word(text: str) -> str:
    """The value in ENV, ARG or LABEL NAME=value. Inside double quotes Docker still reads $, backslash and quotes."""
    return '"' + re.sub(r'([\\"$])', r"\\\1", _one_line(text)) + '"'


def dockerfile_copy(source: str, target: str) -> str:
    """What follows COPY: one file and where it goes, whatever their names hold.

    Docker decodes the JSON, then reads quotes, $ and backslash as a shell does, then takes the source as a pattern.
    """
    source, target = str(source), str(target)
    # In brackets, because a path without them is no pattern, and its backslashes are taken as they are.
    pattern = re.sub(r"[*?\[\\]", lambda found: "[\\\\]" if found[0] == "\\" else f"[{found[0]}]", source)
    words = [re.sub(r"([\\\"'$])", r"\\\1", word) for word in (pattern, target)]
    if NO_UTF_8.search(source + target):
        raise ValueError(f"{source!a} is no UTF-8 text")
    return json.dumps(words)


def grub(text: str) -> str:
    """One word of grub.cfg."""
    text = _one_line(text)
    return text if PLAIN_FOR_GRUB.fullmatch(text) else "'" + text.replace("'", "'\\''") + "'"


class _OneLine(yaml.SafeDumper):
    """Every text in double quotes, with escapes for whatever ends a line; no anchors."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the dumper's own signature
        return True

    def quoted(self, text: str) -> yaml.ScalarNode:
        if NO_UTF_8.search(text):
            raise ValueError("a value holds bytes that are not UTF-8")
        return self.represent_scalar("tag:yaml.org,2002:str", text, style='"')


_OneLine.add_representer(str, _OneLine.quoted)


def yaml_line(value: Any) -> str:
    """A value as YAML on one line, whatever characters it holds."""
    text = yaml.dump(value, Dumper=_OneLine, default_flow_style=True, width=10**9)
    return text.removesuffix("\n").removesuffix("\n...")


def hcl(value: Any) -> Any:
    """Values for a bake file: bake reads each string in its JSON as a template of HCL."""
    if isinstance(value, str):
        return value.replace("${", "$${").replace("%{", "%%{")
    if isinstance(value, dict):
        return {hcl(name): hcl(part) for name, part in value.items()}
    return [hcl(part) for part in value] if isinstance(value, list) else value
