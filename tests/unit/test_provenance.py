"""Provenance statements and their envelopes."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebuild import provenance
from edgebuild.config import load_environment
from edgebuild.errors import VerificationError
from edgebuild.provenance import Dependency, Invocation, Subject, git_dependency, image_dependency

DIGEST = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32
SUBJECTS = [Subject("palette.iso", DIGEST), Subject("ttl.sh/edge/ubuntu:k3s-1.33.6-demo", OTHER)]
RUN = Invocation("f3c2", 1704067200.7, 1704067262.0, {"engine": "26.1", "edgebuild": "0.1", "buildx": "0.13.1"})


def make(invocation: Invocation = RUN, dependencies: list[Dependency] | None = None, **named: Any) -> bytes:
    given: dict[str, Any] = {"environment": "demo", "configuration": {"a": 1}, "targets": ["iso", "base-image"]}
    return provenance.statement(
        SUBJECTS, dependencies=dependencies or [], invocation=invocation, **{**given, **named}
    )


def test_the_statement() -> None:
    found = json.loads(
        make(
            dependencies=[
                image_dependency("quay.io/kairos/ubuntu:22.04", DIGEST),
                git_dependency("https://me:secret@example.com/fork.git", "c0ffee", dirty=True),
                Dependency("Dockerfile", OTHER),
                Dependency("Dockerfile", OTHER),
            ]
        )
    )
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["predicateType"] == "https://slsa.dev/provenance/v1"
    assert found["subject"] == [
        {"name": "palette.iso", "digest": {"sha256": "ab" * 32}},
        {"name": "ttl.sh/edge/ubuntu:k3s-1.33.6-demo", "digest": {"sha256": "cd" * 32}},
    ]
    definition, details = found["predicate"]["buildDefinition"], found["predicate"]["runDetails"]
    assert definition["externalParameters"] == {
        "environment": "demo",
        "targets": ["base-image", "iso"],
        "configuration": {"a": 1},
    }
    assert definition["resolvedDependencies"] == [
        {"name": "Dockerfile", "digest": {"sha256": "cd" * 32}},
        {
            "name": "quay.io/kairos/ubuntu:22.04",
            "digest": {"sha256": "ab" * 32},
            "uri": f"pkg:docker/quay.io/kairos/ubuntu@22.04?digest=sha256%3A{'ab' * 32}",
        },
        {
            "name": "repository",
            "digest": {"gitCommit": "c0ffee"},
            "uri": "git+https://example.com/fork.git@c0ffee",
            "annotations": {"dirty": True},
        },
    ]
    assert details["builder"]["version"] == {"buildx": "0.13.1", "edgebuild": "0.1", "engine": "26.1"}
    assert details["metadata"] == {
        "invocationId": "f3c2",
        "startedOn": "2024-01-01T00:00:00Z",
        "finishedOn": "2024-01-01T00:01:02Z",
    }


@pytest.mark.parametrize(
    ("reference", "uri"),
    [
        ("debian:12-slim", "pkg:docker/debian@12-slim"),
        ("127.0.0.1:5000/a/b", "pkg:docker/127.0.0.1%3A5000/a/b"),
        ("127.0.0.1:5000/a/b:1", "pkg:docker/127.0.0.1%3A5000/a/b@1"),
        (f"quay.io/a@{DIGEST}", "pkg:docker/quay.io/a"),
    ],
)
def test_images(reference: str, uri: str) -> None:
    assert image_dependency(reference, DIGEST).uri.partition("?")[0] == uri


def test_two_runs_differ_in_run_details_only() -> None:
    other = Invocation("another", 1.0, 2.0, {"engine": "27"})
    one, two = json.loads(make()), json.loads(make(other, targets=["base-image", "iso"]))
    assert one != two
    one["predicate"].pop("runDetails")
    two["predicate"].pop("runDetails")
    assert one == two


def test_a_configuration_holds_references_and_no_login(root: Path) -> None:
    settings = [
        "proxy.http=http://me:open-sesame@proxy.example.com:3128",
        "secrets.edge_host_token=env:EDGE_HOST_TOKEN",
        "signing.key=file:/keys/signing.pem",
    ]
    environ = {"EDGE_HOST_TOKEN": "the-token"}
    environment = load_environment(root, "demo", settings=settings, environ=environ)
    text = make(configuration=environment.model_dump(by_alias=True)).decode()
    assert "open-sesame" not in text
    assert "the-token" not in text
    parameters = json.loads(text)["predicate"]["buildDefinition"]["externalParameters"]["configuration"]
    assert parameters["proxy"]["http"] == "http://proxy.example.com:3128"
    assert parameters["secrets"]["edge_host_token"] == "env:EDGE_HOST_TOKEN"
    assert parameters["schema"] == 1


def test_what_differs_from_the_statement_is_named() -> None:
    payload = make()
    assert provenance.check_statement(payload, SUBJECTS) == []
    problems = provenance.check_statement(payload, [Subject("palette.iso", OTHER), Subject("new.iso", DIGEST)])
    assert problems == [
        "new.iso: the provenance does not name it",
        f"palette.iso: is {OTHER}, but the provenance is about {DIGEST}",
        "ttl.sh/edge/ubuntu:k3s-1.33.6-demo: the provenance names it, but it is not there",
    ]
    assert provenance.check_statement(payload.replace(b"slsa.dev", b"example"), SUBJECTS) != []
    for other in (b"", b"[]", b"{}", b'{"subject": [1]}', b"\xff", b"[" * 100_000):
        assert provenance.check_statement(other, SUBJECTS) == ["the provenance is no in-toto statement"]


def test_the_bytes_that_are_signed() -> None:
    """The example of DSSE's own specification."""
    assert provenance.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_an_envelope() -> None:
    signed: list[bytes] = []

    def sign(data: bytes) -> str:
        signed.append(data)
        return "c2ln"

    text = provenance.seal(b"payload", sign, key_id="k")
    assert signed == [b"DSSEv1 28 application/vnd.in-toto+json 7 payload"]
    opened = provenance.unseal(text)
    assert opened.payload == b"payload"
    assert opened.signatures == (("k", "c2ln"),)
    assert opened.signed == signed[0]
    assert provenance.unseal(provenance.seal(b"x")).signatures == ()


@given(st.one_of(st.text(), st.binary(), st.recursive(st.none() | st.text(), st.lists).map(json.dumps)))
def test_other_text_is_no_envelope(text: str | bytes) -> None:
    with pytest.raises(VerificationError):
        provenance.unseal(text)


def test_an_envelope_of_something_else() -> None:
    changes: list[dict[str, Any]] = [{"payloadType": "text/plain"}, {"payload": "*"}, {"payload": 3}]
    changes += [{"signatures": [{}]}, {"signatures": 1}, {"signatures": ["x"]}]
    for change in changes:
        whole = json.loads(provenance.seal(b"x"))
        with pytest.raises(VerificationError):
            provenance.unseal(json.dumps({**whole, **change}))
    assert base64.b64decode(json.loads(provenance.seal(b"x"))["payload"]) == b"x"
