"""docs/scale.md: what can be copied from it loads, parses and adds up."""

import configparser
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from edgebuild import builders
from edgebuild.config import load_environment


def blocks(root: Path, kind: str) -> list[str]:
    text = (root / "docs/scale.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_environments_load_and_their_builders_can_be_created(root: Path, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    for name in ("releases", "defaults.yaml"):
        (tmp_path / "config" / name).symlink_to(root / "config" / name)
    names = []
    for text in blocks(root, "yaml"):
        if found := re.match(r"# config/(\w+)\.yaml", text):
            names.append(found[1])
            (tmp_path / f"config/{found[1]}.yaml").write_text(text)
    assert names == ["laptop", "big", "machines", "cluster", "pods"]
    made = {}
    for name in names:
        environment = load_environment(tmp_path, name, environ={})
        made[name] = [builders.create_argv(each) for each in builders.open_set(environment.builders, tmp_path)]
    assert made["laptop"] == [[]]
    assert made["big"][0][-1] == "host=ssh://user@big"
    assert [argv[-1] for argv in made["machines"]] == ["tcp://b1:1234", "tcp://b2:1234"]
    assert "replicas=4" in made["cluster"][0]
    assert len(made["pods"]) == 2


def test_files_parse(root: Path) -> None:
    kinds = [
        document["kind"]
        for text in blocks(root, "yaml")
        for document in yaml.safe_load_all(text)
        if "kind" in document
    ]
    assert kinds == ["Service", "ConfigMap", "StatefulSet"]
    [settings] = [tomllib.loads(text) for text in blocks(root, "toml")]
    assert settings["worker"]["oci"]["gc"] is True
    [unit] = blocks(root, "ini")
    parser = configparser.ConfigParser(strict=True, interpolation=None)
    parser.read_string(unit)
    assert parser["Service"]["ExecStart"].startswith("/usr/local/bin/buildkitd --config /etc/buildkit/buildkitd.toml")


def test_parts_of_the_statefulset_fit_together(root: Path) -> None:
    documents = [
        each for text in blocks(root, "yaml") if "kind: StatefulSet" in text for each in yaml.safe_load_all(text)
    ]
    service, settings, pods = documents
    assert tomllib.loads(settings["data"]["buildkitd.toml"])["worker"]["oci"]["gc"] is True
    assert pods["spec"]["serviceName"] == service["metadata"]["name"]
    assert (
        pods["spec"]["template"]["metadata"]["labels"]
        == pods["spec"]["selector"]["matchLabels"]
        == service["spec"]["selector"]
    )
    inner = pods["spec"]["template"]["spec"]
    volumes = {each["name"] for each in inner["volumes"]} | {"cache"}
    assert {each["name"] for each in inner["containers"][0]["volumeMounts"]} == volumes


@pytest.mark.parametrize("feature", builders.FEATURES)
def test_the_table_names_every_feature_with_its_version(root: Path, feature: builders.Feature) -> None:
    text = (root / "docs/scale.md").read_text(encoding="utf-8")
    assert f"| {feature.program} {'.'.join(map(str, feature.minimum))} |" in text


@pytest.mark.process
def test_the_commands_for_certificates_run_and_what_they_make_verifies(root: Path, tmp_path: Path) -> None:
    from edgebuild.run import run

    [commands] = [text for text in blocks(root, "sh") if "openssl x509" in text]
    made = run(["sh", "-eu", "-c", commands], cwd=tmp_path)
    assert made.stdout.splitlines()[-3:] == ["b1.pem: OK", "b2.pem: OK", "client.pem: OK"]
    assert (tmp_path / "pki/client-key.pem").stat().st_mode & 0o077 == 0
