"""Secrets are resolved late, and never shown."""

import base64
import html
import io
import json
import re
import shlex
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgebuild import run
from edgebuild.errors import InputError
from edgebuild.forms import forms_to_find
from edgebuild.progress import BuildState
from edgebuild.secrets import Guarded, Hidden, guarded, hidden, redact, resolve, resolve_if_there

SECRET = 'a "quoted" token/+'


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    hidden.clear()


def hiding(*values: str) -> Callable[[str], str]:
    found = Hidden()
    for value in values:
        found.add(value, value)
    return found.redact


def test_resolve(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from a file\n")
    assert resolve("env:TOKEN", environ={"TOKEN": " as it is "}, root=tmp_path, key="k") == " as it is "
    assert resolve("file:token", environ={}, root=tmp_path, key="k") == "from a file"
    assert redact("it was <from a file> and stays as it is.") == "it was <***> and stays ***."


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("env:TOKEN", "secrets.t: the environment variable TOKEN is not set"),
        ("env:EMPTY", "secrets.t: the environment variable EMPTY is empty"),
        ("env:BYTES", "secrets.t: the environment variable BYTES is not UTF-8"),
        ("file:nowhere", "secrets.t: nowhere cannot be read: No such file"),
        ("file:empty", "secrets.t: empty is empty"),
        ("file:binary", "secrets.t: binary is not UTF-8"),
        ("hunter2", "secrets.t: expected a reference"),
    ],
)
def test_no_value(tmp_path: Path, reference: str, expected: str) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(InputError) as caught:
        resolve(reference, environ={"EMPTY": "", "BYTES": "\udcff"}, root=tmp_path, key="secrets.t")
    assert expected in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_what_is_not_needed_is_hidden_when_it_is_there(tmp_path: Path) -> None:
    references = {"one": "env:ONE", "two": "env:TWO"}
    resolve_if_there(references, environ={"TWO": "hunter2"}, root=tmp_path)
    assert hidden.values == {"two": "hunter2"}
    assert redact("hunter2") == "***"


# How programs repeat a value.
FORMS: dict[str, Callable[[str], str]] = {
    "raw": str,
    "quote": lambda value: urllib.parse.quote(value, safe=""),
    "quote, lower": lambda value: "".join(
        part.lower() if part.startswith("%") else part
        for part in (urllib.parse.quote(character, safe="") for character in value)
    ),
    "quote but /": urllib.parse.quote,
    "quote twice": lambda value: urllib.parse.quote(urllib.parse.quote(value)),
    "quote_plus": urllib.parse.quote_plus,
    "json": json.dumps,
    "json in unicode": lambda value: json.dumps(value, ensure_ascii=False),
    "json in json": lambda value: json.dumps(json.dumps({"a": value})),
    "yaml": lambda value: yaml.safe_dump(value, default_style='"', width=10**6),
    "yaml in unicode": lambda value: yaml.safe_dump(value, default_style='"', width=10**6, allow_unicode=True),
    "yaml in single quotes": lambda value: yaml.safe_dump(value, default_style="'", width=10**6),
    "shell": shlex.quote,
    "shell, double quotes": lambda value: "".join("\\" + each if each in '$`"\\!' else each for each in value),
    "shell, backslashes": lambda value: "".join(each if each.isalnum() else "\\" + each for each in value),
    "sed's quotes": lambda value: value.replace("'", "'\\''"),
    "repr": repr,
    "ascii": ascii,
    "bytes": lambda value: repr(value.encode()),
    "html": html.escape,
    "bake": lambda value: value.replace("${", "$${").replace("%{", "%%{"),
}
VALUES = st.text(st.characters(exclude_categories=["Cs", "Zl", "Zp"], exclude_characters="\0\r\n\x85*"), min_size=8)


@settings(deadline=None)
@given(value=VALUES)
def test_no_form_is_shown(value: str) -> None:
    value = value.strip()
    assume(len(value) >= 8)
    redacts = hiding(value)
    for name, form in FORMS.items():
        # Nothing is left but quotes, and the rest of the text.
        assert re.fullmatch(r"""<[b'"\\{a: }\n]*\*{3}['"\\}\n.]*>""", redacts(f"<{form(value)}>")), name


@settings(deadline=None)
@given(value=VALUES, before=st.binary(max_size=9), after=st.binary(max_size=9), url=st.booleans())
def test_no_base64_is_shown(value: str, before: bytes, after: bytes, url: bool) -> None:
    value = value.strip()
    assume(len(value.encode()) >= 8)
    encode = base64.urlsafe_b64encode if url else base64.b64encode
    text = encode(before + value.encode() + after).decode()
    assert hiding(value)(f"Authorization: Basic {text}, it said") == "Authorization: Basic ***, it said"
    assert hiding(value)(json.dumps({"a": text})) == '{"a": "***"}'


@settings(deadline=None)
@given(value=VALUES)
def test_every_form_is_found_and_grep_reads_the_patterns(value: str) -> None:
    """What the scan looks for is in the bytes of every form."""
    assume(len(value.strip()) >= 8)
    forms = forms_to_find(value)
    for name, form in FORMS.items():
        data = form(value.strip())
        found = [each for each in forms if each.anchor in data and each.bytes_regex.search(data.encode())]
        assert found, name
    lines = base64.encodebytes(b"x" * 50 + value.encode() * 2).decode()
    assert any(form.bytes_regex.search(lines.encode()) for form in forms)


@pytest.mark.process
@pytest.mark.parametrize("value", [SECRET, "päss wörd😀'\\\"$x", "a\\\\b^[c]{2}|d*?+.()", "\x07\x1b[0mtab\there"])
def test_grep_reads_the_patterns(value: str, tmp_path: Path) -> None:
    (tmp_path / "patterns").write_text("".join(f"{form.pattern}\n" for form in forms_to_find(value)))
    texts = [form(value) for form in FORMS.values()]
    texts += [base64.b64encode(b"x" * count + value.encode() + b"x" * count).decode() for count in range(4)]
    for text in texts:
        (tmp_path / "text").write_text(text)
        argv = ["grep", "-a", "-o", "-b", "-E", "-f", str(tmp_path / "patterns"), str(tmp_path / "text")]
        assert run.run(argv, env={"LC_ALL": "C"}).stdout, text


def test_lines_of_a_longer_secret() -> None:
    value = (
        "auth:\n  username: me\n  password: hunter2-hunter2\n-----BEGIN KEY-----\nMIIBVgIBADANBgkq\n-----END KEY-----"
    )
    redacts = hiding(value)
    assert redacts("  password: hunter2-hunter2") == "  ***"
    assert redacts("refused: hunter2-hunter2") == "refused: ***"
    assert redacts("a MIIBVgIBADANBgkq z") == "a *** z"
    assert redacts(f"<{value}>") == "<***>"
    assert "hunter2" not in redacts(json.dumps(value))
    assert {form.part for form in forms_to_find(value)} == {"hunter2-hunter2", "MIIBVgIBADANBgkq"}


@pytest.mark.process
@pytest.mark.parametrize("options", [["EC", "-pkeyopt", "ec_paramgen_curve:P-256"], ["RSA"]])
@pytest.mark.parametrize("kind", [[], ["-traditional"]])
def test_a_public_key_is_no_secret(options: list[str], kind: list[str], tmp_path: Path) -> None:
    """It is a part of the private one, and in base64 often the same letters."""
    for _ in range(3):
        run.run(["openssl", "genpkey", "-algorithm", *options, "-out", str(tmp_path / "key")])
        private = run.run(["openssl", "pkey", "-in", str(tmp_path / "key"), *kind])
        public = run.run(["openssl", "pkey", "-in", str(tmp_path / "key"), "-pubout"])
        forms = forms_to_find(private.stdout)
        assert any(form.bytes_regex.search(private.stdout.encode()) for form in forms)
        assert not [form for form in forms if form.bytes_regex.search(public.stdout.encode())]


def test_short_secrets_are_hidden_but_not_looked_for() -> None:
    for value in ("a", "ab", "abc", "abcd", "seven77", "++/"):
        assert hiding(value)(f"1 {value} 2") in {"1 *** 2"}
        assert hiding(value)(f"1 {base64.b64encode(value.encode()).decode()} 2") == "1 *** 2"
        assert forms_to_find(value) == []
    assert hiding("   ")("left   alone") == "left   alone"


def test_nothing_to_hide() -> None:
    assert redact("text") == "text"
    assert hiding()("text") == "text"


@pytest.mark.parametrize("text", ["\\" * 5000, "A" * 100000, "'" * 5000, "%25" * 5000, "a " * 20000, '\\"' * 5000])
def test_no_text_takes_long(text: str) -> None:
    """Patterns with many readings would: these ends within the time of a test, or never."""
    redacts = hiding(SECRET, "\\\\\\'\\\"\\ x", "''''''''", "a a a a a a b", "AAAAAAAA+AAAAAAA")
    started = time.process_time()
    redacts(text)
    assert time.process_time() - started < 20


def test_a_stream_in_any_cut() -> None:
    hidden.add("k", SECRET)
    text = f"one {SECRET}\ntwo {json.dumps(SECRET)} three"
    for cut in range(len(text)):
        shown = io.StringIO()
        stream = Guarded(shown)
        stream.write(text[:cut])
        stream.writelines([text[cut:]])
        assert shown.getvalue() == "one ***\n"
        stream.flush()
        assert shown.getvalue() == 'one ***\ntwo "***" three'
    assert guarded(guarded(shown))._stream is shown  # type: ignore[attr-defined]
    assert not guarded(shown).isatty()


def test_output_of_a_build_step_in_any_cut() -> None:
    redacts = hiding("hünter2-hunter2")
    data = "the login is hünter2-\x1b[1mhunter2\r\nno end: hünter2-hunter2".encode()
    vertex = {"digest": "1", "name": "[a 1/2] RUN echo hünter2-hunter2", "started": "2026-11-24T10:00:00Z"}
    for cut in range(len(data)):
        state = BuildState(redacts)
        lines = []
        logs = [
            {"vertex": "1", "stream": 1, "data": base64.b64encode(part).decode()} for part in (data[:cut], data[cut:])
        ]
        done = {**vertex, "completed": "2026-11-24T10:00:01Z", "error": "exit: hünter2-hunter2"}
        for status in ({"vertexes": [vertex]}, {"logs": logs[:1]}, {"logs": logs[1:]}, {"vertexes": [done]}):
            lines += [event.text for event in state.update(status) if hasattr(event, "text")]
        lines += [line.text for line in state.close()]
        assert lines == ["the login is ***", "no end: ***"]
        step = state.steps["1"]
        assert (list(step.tail), step.title, step.error) == (lines, "[a 1/2] RUN echo ***", "exit: ***")


@pytest.mark.process
def test_children_do_not_get_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_HOST_TOKEN", "hunter2-hunter2")
    assert "hunter2-hunter2" in run.run(["env"]).stdout
    resolve("env:EDGE_HOST_TOKEN", environ={"EDGE_HOST_TOKEN": "hunter2-hunter2"}, root=tmp_path, key="k")
    assert "hunter2-hunter2" not in run.run(["env"]).stdout
    assert "GIVEN=hunter2" in run.run(["env"], env={"GIVEN": "hunter2"}).stdout
    with pytest.raises(run.CommandFailed) as caught:
        run.run(["sh", "-c", "echo hunter2-hunter2 >&2; exit 3"])
    assert "hunter2-hunter2" not in redact(str(caught.value))


def test_bytes_that_are_no_text_can_be_printed() -> None:
    """As in the name of a file, or an argument: Python holds them as surrogates."""
    assert hiding("hunter2-hunter2")("\udcff hunter2-hunter2") == "\\udcff ***"
