"""Secrets are resolved late, and never shown."""

import base64
import json
import urllib.parse
from pathlib import Path

import pytest

from edgebuild.errors import InputError
from edgebuild.secrets import redact, resolve


def test_resolve(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from a file\n")
    assert resolve("env:TOKEN", environ={"TOKEN": " as it is "}, root=tmp_path, key="k") == " as it is "
    assert resolve("file:token", environ={}, root=tmp_path, key="k") == "from a file"


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("env:TOKEN", "secrets.t: the environment variable TOKEN is not set"),
        ("env:EMPTY", "secrets.t: the environment variable EMPTY is empty"),
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
        resolve(reference, environ={"EMPTY": ""}, root=tmp_path, key="secrets.t")
    assert expected in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_redact_every_form() -> None:
    secret = 'a "quoted" token/+'
    forms = [
        secret,
        json.dumps(secret),
        urllib.parse.quote(secret, safe=""),
        base64.b64encode(secret.encode()).decode(),
    ]
    text = redact(" ".join(forms), [secret, ""])
    assert "token" not in text
    assert text.count("***") == 4
