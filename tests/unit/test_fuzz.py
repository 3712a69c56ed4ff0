"""10,000 odd configurations, settings and user-data: each ends in a valid result or in an error of ours.

Nothing else may leave: no traceback, no hang (pytest-timeout), and no value may end the line that it stands in.
"""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgebuild.cloudconfig import check_user_data, render_user_data
from edgebuild.config import make_environment
from edgebuild.errors import EdgebuildError
from edgebuild.grub import render_menu
from edgebuild.inputs import Inputs
from edgebuild.layers import PREFIX, Layer, leaves, parse_layer, settings_layer, variables_layer
from edgebuild.model import Environment
from edgebuild.plan import make_plan, profile_values
from edgebuild.render import render_bake, render_dockerfile, render_profile

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.timeout(300)
CASES = {"structured": 2500, "raw": 1500, "odd": 1000, "outside": 2500, "user-data": 2500}
assert sum(CASES.values()) == 10_000


def cases(name: str) -> settings:
    return settings(max_examples=CASES[name], suppress_health_check=list(HealthCheck))


@functools.cache
def base() -> tuple[Layer, Layer]:
    files = ("config/defaults.yaml", "config/releases/v4.9.38.yaml")
    first, second = (parse_layer((ROOT / file).read_text(encoding="utf-8"), file) for file in files)
    return first, second


@functools.cache
def source() -> str:
    return (ROOT / "Dockerfile.j2").read_text(encoding="utf-8")


@functools.cache
def keys() -> list[tuple[str, ...]]:
    """Every key that a person can write: those with values, and the sections above them."""
    found = set(leaves(base()[0].values)) | set(leaves(base()[1].values))
    return sorted({key[:length] for key in found for length in range(1, len(key) + 1)})


BOMBS = [
    "{{ 9**9**9 }}", "{{ 'a'*10**10 }}", "{{ range(10**9)|list }}", "{% for a in range(9) %}{{ a }}{% endfor %}",
    "{{ 'a'.ljust(10**10) }}", "{{ 'a'|center(10**10) }}", "{{ '%99999999999d' % 1 }}", "{{ '{:>99999999999}'.format(1) }}",
    "{{ lipsum(10**9) }}", "{{ [[1]*3000]*3000 }}", "{{ ''.__class__.__mro__ }}", "{{ os.packages.__class__ }}", "{{ 1/0 }}",
    "{{ os }}", "{{ nothing }}", "{{ image.tag }}", "{{ components }}", "{{ os.version ~ os.version }}", "{{ 'x'|replace('', 'y'*9999) }}",
    "{{ os['nothing'] }}", "{{ os[0] }}", "{{ os() }}", "{{ os.packages[5] }}", "{{ -'a' }}", "{{ [1]|map('nothing')|list }}", "{{", "}}", "{%", "{#",
    "{{ '" + "(" * 500 + "' }}", "{{ " + "(" * 500 + ")" * 500 + " }}", "{{ " + "9" * 5000 + " }}", "{{ '\\ud800' }}", "{{ x for x }}",
]  # fmt: skip
NASTY = [
    "", " ", "\n", "a\nRUN evil", "a\r", "\0", "\x85", "\u2028", "\ufeff", "\ud800", "$(id)", "${HOME}", "`id`", "'", '"', "\\", "a\\", "EOF",
    "\nEOF\n", "a;b", "a && b", "--flag", "-", "..", "../..", "/", "/etc", "~", "*", "[", "{", "%{x}", "#", "a #b", ": ", "- a", "null", "true",
    "0644", "22:04", "1e9", "9" * 30, "9" * 5000, "x" * 300, "ü", "日本", "<<", "&a", "*a", "!!int x", "|", ">", "\t",
    "env:X", "file:/etc/shadow", "https://x", "quay.io/a/b:c", "docker.io", "ubuntu", "debian", "rhel", "alpine", "arm64", "1.33.6", "all", "none", "bookworm",
]  # fmt: skip
TEXT = st.one_of(st.sampled_from(NASTY), st.sampled_from(BOMBS), st.text(max_size=20))
SCALAR = st.one_of(TEXT, st.none(), st.booleans(), st.integers(), st.floats(), st.dates())
VALUE = st.recursive(
    SCALAR,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=8,
)
GOOD: dict[str, list[Any]] = {
    "os.packages": [["vim", "a=1.0~b", "lib+c"]],
    "os.distribution": ["ubuntu", "debian", "opensuse-leap", "rhel"],
    "os.base_image": ["quay.io/kairos/x:1"],
    "os.arch": ["amd64", "arm64"],
    "kubernetes.distribution": ["k3s", "rke2", "kubeadm"],
    "kubernetes.versions": ["all", ["1.33.6"]],
    "kubernetes.payload": ["luet", "none"],
    "kubernetes.bundle": [True, False],
    "image.tag": ["", "a.b_c-d"],
    "iso.kernel_arguments": [["a;b", "x=${y}", "quiet", "a=1,2@3%/:"]],
    "proxy.http": ["http://u:p${x}%{y}@h:1", "http://a,b"],
    "proxy.no_proxy": [["10.0.0.0/8", ".example.com"]],
    "secrets.luet_auth": ["env:LUET", "file:a b'c"],
    "pipeline.agent_files": [["/etc/a:/etc/b", "/x"]],
    "pipeline.luet_environment": [{"A": "x $y \"q\" 'r' \\ `id` ${HOME}", "B": "\\"}, {"C": "%{if} # EOF <<EOF"}],
    "pipeline.third_party_flavor": ["x.y-z"],
    "pipeline.system_extensions": [True, False],
    "pipeline.kernel_policy": [True, False],
    "kubernetes_packages": [{"k3s": ["a/b@{version}", "c/d"]}],
    "grub.entries": [
        [{"title": 'It\'s $(reboot) ; "x" {y} \\', "arguments": "{video} a;b 'c $d", "trailing": "\\ }"}]
    ],
    "grub.line": ["{console} ; reboot {entry} $x"],
    "registries.mirrors": [{"quay.io": "registry.example.com/quay.io"}],
}


def nested(pairs: Sequence[tuple[tuple[str, ...], Any]]) -> dict[Any, Any]:
    made: dict[Any, Any] = {"schema": 1}
    for key, value in pairs:
        inside = made
        for part in key[:-1]:
            if not isinstance(inside.get(part), dict):
                inside[part] = {}
            inside = inside[part]
        inside[key[-1]] = value
    return made


@st.composite
def pairs(draw: st.DrawFn) -> list[tuple[tuple[str, ...], Any]]:
    """Keys with values, some good ones and a few of any kind."""
    good = draw(st.lists(st.sampled_from(sorted(GOOD)), max_size=6, unique=True))
    odd = draw(st.lists(st.sampled_from(keys()), max_size=2))
    chosen = [(tuple(name.split(".")), draw(st.sampled_from(GOOD[name]))) for name in good]
    return [*chosen, *((key, draw(VALUE)) for key in odd)]


def shown(error: EdgebuildError) -> None:
    """An error can be printed, and is no book."""
    assert str(error).encode()
    assert len(str(error)) < 50_000


def tried(*layers: Layer) -> Environment | None:
    """The environment of these layers, with everything rendered; None when it is refused as it should be."""
    try:
        environment = make_environment([*base(), *layers])
    except EdgebuildError as error:
        shown(error)
        return None
    rendered(environment)
    return environment


def skeleton(dockerfile: str) -> list[tuple[str, int]]:
    """The instructions of a Dockerfile, each with the number of its lines."""
    found: list[tuple[str, int]] = []
    lines = iter(dockerfile.split("\n"))
    for line in lines:
        if not line or line.startswith("#"):
            continue
        own = [line]
        while own[-1].endswith("\\"):
            own.append(next(lines))
        if "<<'EOF'" in own[-1]:
            own += iter(lambda: next(lines), "EOF")
        found.append((line.split(" ")[0], len(own)))
    return found


def bland(environment: Environment) -> Environment:
    """The same environment with the dullest values in all places that are free text."""
    pipeline = environment.pipeline
    plain = {
        "agent_files": tuple("/a" for _ in pipeline.agent_files),
        "luet_environment": dict.fromkeys(pipeline.luet_environment, "x"),
        "third_party_flavor": "x",
    }
    packages = {name: tuple("p" for _ in each) for name, each in environment.kubernetes_packages.items()}
    return environment.model_copy(
        update={
            "pipeline": pipeline.model_copy(update=plain),
            "os": environment.os.model_copy(update={"packages": tuple("p" for _ in environment.os.packages)}),
            "kubernetes_packages": packages,
            "release": "r",
            "pe_version": "p",
        }
    )


def rendered(environment: Environment) -> None:
    """Everything that is made of a valid environment; no value adds a line of its own."""
    inputs = Inputs(certificates=("certs/a b'c\"d$e\\f\n[g]*.pem",))
    plan = make_plan("fuzz", environment)
    try:
        dockerfile = render_dockerfile(plan, environment, inputs, source())
        menu = render_menu(environment)
    except EdgebuildError as error:
        shown(error)
        return
    dull = render_dockerfile(make_plan("fuzz", bland(environment)), bland(environment), inputs, source())
    assert skeleton(dockerfile) == skeleton(dull)
    assert menu.count("\n") == 13 + 9 * len(environment.grub.entries)
    bake = json.loads(render_bake(plan, environment, dockerfile))
    assert bake["target"]["_pipeline"]["dockerfile-inline"].replace("$${", "${").replace("%%{", "%{") == dockerfile
    options = yaml.safe_load(render_profile(environment))["options"]
    assert {name: options[name] for name in profile_values(environment)} == profile_values(environment)


def read(text: str) -> Environment | None:
    try:
        layer = parse_layer(text, "config/fuzz.yaml")
    except EdgebuildError as error:
        shown(error)
        return None
    return tried(layer)


@cases("structured")
@given(chosen=pairs(), flow=st.sampled_from([True, False, None]), anchors=st.booleans())
def test_configurations(chosen: list[tuple[tuple[str, ...], Any]], flow: bool | None, anchors: bool) -> None:
    data = nested(chosen)
    try:
        text = yaml.safe_dump(data, default_flow_style=flow, allow_unicode=anchors)
    except TypeError:  # keys of several types cannot be sorted
        text = yaml.safe_dump(data, default_flow_style=flow, sort_keys=False)
    read(text)


@cases("raw")
@given(
    text=st.one_of(
        st.text(),
        st.text(alphabet="abos:{}[],&*!|>-?#'\"%@`\\ \n\t0123.<~"),
        st.binary().map(lambda data: data.decode("utf-8", "surrogateescape")),
    )
)
def test_raw_texts(text: str) -> None:
    read(text)
    read("schema: 1\nos:\n  " + text)


ODD = [
    "a: &a [*a]", "b: &b {c: *b}", "os: &o {version: *o}", "image: {tag: &t x}\niso: {name: *t}", "iso: {name: *nothing}", "<<: {schema: 1}",
    "os: {<<: [{version: 22}, {arch: amd64}]}", "os: &x {<<: *x}", "image: {tag: !!int x}", "image: {tag: !!int 5}", "image: {tag: !!str 5}",
    "image: {tag: !!python/object/apply:os.system [id]}", "image: {tag: !!timestamp x}", "image: {tag: !!binary x}", "image: {tag: !!float x}",
    "image: {tag: !!bool x}", "image: {tag: !!null x}", "image: {tag: !!set {a}}", "image: {tag: !!omap [a]}", "image: {tag: !own x}", "!!map {}", "!!set {a}",
    "os: {packages: !!map []}", "os: {packages: !!seq {}}", "? [a, b]\n: c", "? {a: b}\n: c", "? &k [*k]\n: c", "1: a", "null: a", "true: a", "1.5: a", "2001-01-01: a", ": a", "[]: a",
    "os: " + "[" * 40 + "]" * 40, "os: " + "[" * 2000 + "]" * 2000, "os: " + "[" * 100_000, "os: " + "{a: " * 500 + "}" * 500, "- " * 3000, "? " * 3000,
    "\n".join(f"{' ' * depth}a:" for depth in range(2000)), "x: " + "9" * 5000, "x: 1" + ":59" * 3000, "x: 0x" + "f" * 5000, "push: {jobs: " + "9" * 18 + "}",
    "a: &a0 [x, x]\n" + "\n".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 40)),
    "a: &a0 {x: y}\n" + "\n".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], b{n}: x}}" for n in range(1, 40)),
    "a: &a0 " + "x" * 10_000 + "\nb: [" + "*a0," * 5000 + "]", "components:\n" + "\n".join(f"  c{n}: '{{{{ components.c{n + 1} }}}}{{{{ components.c{n + 1} }}}}'" for n in range(60)) + "\n  c60: x",
    "components:\n" + "\n".join(f"  c{n}: '{{{{ components.c{n + 1} }}}}'" for n in range(1500)) + "\n  c1500: x", "components: {a: '{{ components.b }}', b: '{{ components.a }}'}",
    "pe_version: '{{ pe_version }}'", "release: '{{ pe_version }}'", "schema: '{{ 1 }}'", "a: |\n  {{ x }}\n", "--- {}\n--- {}", "...", "---", "%YAML 9.9\n--- {}", "%TAG ! x\n--- {}", "\ufeffschema: 1",
    "os: {version: \"\\ud800\"}", "os: {version: \"\\0\"}", "os: {version: \"\\x85\"}", "os: {version: \"\\xzz\"}", "a: \x00", "a: \x1b", "a: \ud800", "a: \u2028b: c", "a:\u00a0b", "\tschema: 1", "os:\n\tversion: 1",
    "os: {distribution: [x]}", "os: {distribution: {}}", "os: {version: [22]}", "os: {version: true}", "distributions: []", "images: {agent: ''}", "images: {kairos_provider: ''}", "images: {k8s_package_repository: ''}", "images: {tools: ''}", "images: {base: {ubuntu: ''}}", "images: {third_party: ''}", "kubernetes_packages: {k3s: []}", "kubernetes_packages: {}", "distributions: {ubuntu: }", "distributions: {ubuntu: []}", "distributions: {ubuntu: {versions: [[22]]}}",
    "distributions: {ubuntu: {versions: 22}}", "grub: {entries: [{title: a, x: y}]}", "grub: {entries: [5]}", "grub: []", "images: {base: {ubuntu: }}", "kubernetes_versions: {k3s: x}", "kubernetes_versions: x", "architectures: x", "iso: {content: ['', '.', '**x', '/', '*/..']}",
]  # fmt: skip


@cases("odd")
@given(
    parts=st.lists(st.one_of(st.sampled_from(ODD), TEXT), min_size=1, max_size=3),
    start=st.sampled_from(["", "schema: 1\n"]),
)
def test_odd_yaml(parts: list[str], start: str) -> None:
    read(start + "\n".join(parts))


@pytest.mark.parametrize("number", range(len(ODD)))
def test_each_odd_yaml(number: int) -> None:
    read(ODD[number])
    read("schema: 1\n" + ODD[number])


@st.composite
def outside(draw: st.DrawFn) -> tuple[list[str], dict[str, str]]:
    """--set arguments and variables, most with a key that exists."""
    written = st.one_of(TEXT, st.sampled_from(ODD[:30]), VALUE.map(lambda value: json.dumps(value, default=str)))
    names = st.one_of(
        st.sampled_from(keys()).map(".".join), TEXT, st.sampled_from(keys()).map(lambda key: ".".join((*key, "x")))
    )
    arguments = draw(st.lists(st.one_of(st.tuples(names, written).map("=".join), TEXT), max_size=4))
    variables = st.one_of(
        st.sampled_from(keys()).map(lambda key: PREFIX + "_".join(key).upper()), TEXT.map(lambda text: PREFIX + text)
    )
    return arguments, draw(st.dictionaries(variables, written, max_size=2))


@cases("outside")
@given(given_=outside())
def test_settings_and_variables(given_: tuple[list[str], dict[str, str]]) -> None:
    arguments, environ = given_
    known = list(leaves(base()[0].values))
    try:
        layers = [variables_layer(environ, known), settings_layer(arguments, known)]
    except EdgebuildError as error:
        shown(error)
        return
    tried(Layer("config/fuzz.yaml", {"schema": 1}), *layers)


USER_DATA = [
    "stylus:\n  site:\n    edgeHostToken: {{ secrets.edge_host_token }}\n", "install:\n  poweroff: true\n", "users:\n  - name: {{ user.name }}\n",
    "    passwd: {{ user.password_hash }}\n", "{% if secrets.edge_host_token %}\n", "{% endif %}\n", "{% else %}\n", "{% for a in range(3) %}\n", "{% endfor %}\n",
    "{% for a in range(100000) %}{% for b in range(100000) %}{% for c in range(100000) %}{{ a }}", "{% endfor %}{% endfor %}{% endfor %}\n",
    "{% set a = 'x' %}", "{% macro m(x) %}", "{% endmacro %}", "{% include 'x' %}", "{% extends user.name %}", "{% import 'x' as y %}", "{% block a %}{% endblock %}", "{% raw %}{{ x }}{% endraw %}\n",
    "{% for a in user recursive %}{{ loop(a) }}{% endfor %}", "a: {{ user }}\n", "a: {{ [secrets, secrets] }}\n", "a: {{ user|map('upper') }}\n", "a: {{ [1, 'x\\ny', none, true, 1.5] }}\n", "? {{ user }}\n: x\n",
    "a: {{ user.name|upper }}: {{ user.name|join('-') }}\n", "a: {{ range(5) }}\n", "a: {{ user.items }}\n", "#cloud-config\n", "# {{ user.name }}\n", "---\n", "a: &a [*a]\n", "stages: {x: [{commands: [*a]}]}\n", "users: &u [*u]\n",
]  # fmt: skip


@cases("user-data")
@given(
    parts=st.lists(st.one_of(st.sampled_from(USER_DATA), st.sampled_from([*BOMBS, *(text for text in ODD if len(text) < 3000)]).map(lambda text: f"{text}\n"), st.text()), max_size=6),
    token=TEXT,
    name=TEXT,
    head=st.sampled_from(["#cloud-config\n", "#cloud-config\n", ""]),
)  # fmt: skip
def test_user_data(parts: list[str], token: str, name: str, head: str) -> None:
    values = {"secrets": {"edge_host_token": token}, "user": {"name": name, "password_hash": "$6$x"}}
    text = head + "".join(parts)
    try:
        text = render_user_data(text, values)
    except EdgebuildError as error:
        shown(error)
    assert all(isinstance(problem, str) for problem in check_user_data(text))
