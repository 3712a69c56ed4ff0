"""User-data: rendered with every value quoted, then parsed again and checked against the documented keys. Pure."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import jinja2
import yaml
from jinja2.meta import find_undeclared_variables

from edgebuild.cloudconfig_keys import ROOT_KEYS, check
from edgebuild.errors import InputError
from edgebuild.expressions import Sandbox
from edgebuild.quoting import NO_UTF_8, yaml_line
from edgebuild.yamltext import Loader, YamlProblem, read_yaml

HEADERS = ("#cloud-config",)
SITE = "site"
MAX_BYTES = 2_000_000  # Kairos ignores larger files
HASHED = re.compile(r"\$(1|2[abxy]|5|6|7|y|gy)\$")
SALT_CHARACTERS = 16


def render_user_data(template: str, values: Mapping[str, Any], *, source: str = "user-data.j2") -> str:
    """The template with these values. Raises InputError with its line for what the template does wrong."""
    if len(template) >= MAX_BYTES:
        raise InputError(f"{source}: larger than 2 MB; Kairos ignores such a file")
    try:
        return Sandbox(statements=True, finalize=yaml_line).render_text(template, values)
    except jinja2.TemplateSyntaxError as error:
        raise InputError(f"{source}:{error.lineno}: {error.message}") from error
    except jinja2.TemplateError as error:
        raise InputError(f"{source}:{_line(error)}: {error.message}") from error


def is_for_sites(template: str) -> bool:
    """Whether it asks for values of a site, `site.NAME`. What cannot be read does not: rendering it says why."""
    try:
        return SITE in find_undeclared_variables(jinja2.Environment().parse(template))  # noqa: S701 - not rendered
    except (jinja2.TemplateError, RecursionError):
        return False


def _line(error: jinja2.TemplateError) -> int:
    trace, line = error.__traceback__, 1
    while trace:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


class UniqueKeys(Loader):
    """A mapping with the same key twice is an error: the first one would silently lose."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key_node.value} stands there twice", key_node.start_mark
                )
            seen.add(key_node.value if isinstance(key_node, yaml.ScalarNode) else None)
        return super().construct_mapping(node, deep=deep)


def check_user_data(text: str, *, source: str = "user-data.j2") -> list[str]:
    """Everything that is wrong with a rendered user-data; no value of it is repeated."""
    if text.split("\n", 1)[0].strip() not in HEADERS:
        return [f"{source}: the first line must be #cloud-config"]
    if NO_UTF_8.search(text):
        return [f"{source}: holds what is not UTF-8"]
    if len(text.encode()) >= MAX_BYTES:
        return [f"{source}: larger than 2 MB; Kairos ignores such a file"]
    try:
        data = read_yaml(text, UniqueKeys)
    except YamlProblem as error:
        line = f" (rendered line {error.line})" if error.line else ""
        return [f"{source}: {error.problem}{line}"]
    if not isinstance(data, dict):
        return [f"{source}: expected `key: value` lines below #cloud-config"]
    problems = check(data, ROOT_KEYS, "")
    install = data.get("install")
    if isinstance(install, dict) and install.get("reboot") is True and install.get("poweroff") is True:
        problems.append("install: reboot and poweroff cannot both be true")
    return [f"{source}: {problem}" for problem in problems]


def password_hash(password: str, *, seed: str) -> str:
    """SHA-512 crypt of a password, with the same salt for the same seed; a hash is passed through."""
    from passlib.hash import sha512_crypt  # costs 50 ms, and `plan` needs none

    if HASHED.match(password):
        return password
    salt = hashlib.sha256(f"edgebuild salt {seed}".encode()).hexdigest()[:SALT_CHARACTERS]
    hashed: str = sha512_crypt.using(rounds=5000, salt=salt).hash(password)
    return hashed
