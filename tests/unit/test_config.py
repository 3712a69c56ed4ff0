"""Layers, expressions and every kind of wrong configuration."""

from pathlib import Path

import pytest

from edgebuild.config import environment_names, load_environment
from edgebuild.errors import InputError
from edgebuild.layers import parse_layer


@pytest.fixture
def repository(tmp_path: Path, root: Path) -> Path:
    """A repository with the shipped defaults and releases, and an environment `shop` to overwrite."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config/releases").symlink_to(root / "config/releases")
    (tmp_path / "config/defaults.yaml").symlink_to(root / "config/defaults.yaml")
    write(tmp_path, "schema: 1\n")
    return tmp_path


def write(repository: Path, text: str) -> None:
    (repository / "config/shop.yaml").write_text(text, encoding="utf-8")


def problem(repository: Path, text: str = "schema: 1\n", **options: object) -> str:
    write(repository, text)
    with pytest.raises(InputError) as caught:
        load_environment(repository, "shop", environ={}, **options)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_later_layers_win(repository: Path) -> None:
    write(repository, "schema: 1\nimage: {tag: from-file, registry: file.example.com}\n")
    environ = {"EDGEBUILD_IMAGE_TAG": "from-variable", "EDGEBUILD_ISO_NAME": "variable", "EDGEBUILD_ENV": "shop"}
    environment = load_environment(repository, "shop", environ=environ, settings=["iso.name=set"])
    assert environment.image.registry == "file.example.com"
    assert environment.image.tag == "from-variable"
    assert environment.iso.name == "set"


@pytest.mark.parametrize("written", ["22", '"22"', "22.04", '"22.04"'])
def test_os_version_22_is_22_04(repository: Path, written: str) -> None:
    write(repository, f"schema: 1\nos: {{version: {written}}}\n")
    environment = load_environment(repository, "shop", environ={})
    assert environment.os.version == "22.04"
    assert ":22.04-core-amd64-" in environment.images.base["ubuntu"]


def test_old_release_names_ubuntu_by_year(repository: Path) -> None:
    write(repository, "schema: 1\nrelease: v3.4.3\n")
    environment = load_environment(repository, "shop", environ={})
    assert environment.images.base["ubuntu"] == "quay.io/kairos/core-ubuntu-22-lts:v2.0.3"
    assert environment.versions == ("1.24.6", "1.25.2")


def test_expressions_see_later_layers(repository: Path) -> None:
    write(repository, 'schema: 1\nos: {distribution: opensuse-leap, version: "15.6"}\n')
    assert load_environment(repository, "shop", environ={}).image.repository == "opensuse-leap"


@pytest.mark.parametrize(
    ("setting", "versions"),
    [
        ("kubernetes.versions=1.33.6", ("1.33.6",)),
        ("kubernetes.versions=[1.33.6, 1.32.10]", ("1.33.6", "1.32.10")),
    ],
)
def test_versions_are_one_a_list_or_all(repository: Path, setting: str, versions: tuple[str, ...]) -> None:
    assert load_environment(repository, "shop", environ={}, settings=[setting]).versions == versions
    assert len(load_environment(repository, "shop", environ={}).versions) == 57


def test_text_keys_take_any_text_from_outside(repository: Path) -> None:
    environment = load_environment(repository, "shop", environ={}, settings=["image.tag=2024", "iso.name=on"])
    assert (environment.image.tag, environment.iso.name) == ("2024", "on")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "config/shop.yaml: the file is empty"),
        ("# nothing\n", "config/shop.yaml: the file is empty"),
        ("schema: 1\nos:\n\tversion: 22\n", "config/shop.yaml:3: the line is indented with a tab"),
        ("schema: 1\nos: {version: [}\n", "config/shop.yaml:2: not valid YAML"),
        ("- schema\n", "config/shop.yaml:1: expected `key: value` lines"),
        (
            "schema: 1\nimage: {tag: a}\nimage: {tag: b}\n",
            "config/shop.yaml:3: image stands there twice, first in line 2",
        ),
        ("schema: 1\nimage:\n  tg: demo\n", "config/shop.yaml:3: image.tg: no such key; did you mean tag?"),
        ("schema: 1\nimages_: {}\n", "config/shop.yaml:2: images_: no such key; did you mean images?"),
        ("schema: 2\n", "config/shop.yaml:1: schema: expected 1, got int"),
        ("schema: 1\niso: {name: [x]}\n", "config/shop.yaml:2: iso.name: expected a valid string, got list"),
        ("schema: 1\niso: {name:}\n", "config/shop.yaml:2: iso.name: expected a valid string, got nothing"),
        ("schema: 1\niso: text\n", "config/shop.yaml:2: iso: "),
        ("schema: 1\npush: {jobs: many}\n", "config/shop.yaml:2: push.jobs: expected a valid integer, got str"),
        ("schema: 1\niso: {name: a/b}\n", "iso.name: expected lower-case letters"),
        ("schema: 1\niso: {compression: gzip}\n", "iso.compression: expected 'fast', 'small' or 'smallest'"),
        ("schema: 1\nimage: {tag: Demo}\n", "image.tag: expected lower-case letters"),
        ("schema: 1\nimage: {tag: 'a b'}\n", "image.tag: expected lower-case letters"),
        ("schema: 1\nimage: {tag: 'a;reboot'}\n", "image.tag: expected lower-case letters"),
        ("schema: 1\nimage: {tag: $(id)}\n", "image.tag: expected lower-case letters"),
        ("schema: 1\nimage: {registry: TTL.sh}\n", "image.registry: expected host[:port][/namespace] in lower case"),
        ("schema: 1\nimage: {registry: https://ttl.sh}\n", "image.registry: a registry is written without scheme"),
        ("schema: 1\nimage: {registry: my_registry.io}\n", "image.registry: a registry's host name may not contain"),
        ("schema: 1\nimage: {registry: 'ttl.sh`id`'}\n", "image.registry: expected host"),
        ("schema: 1\nimage: {registry: 'ttl sh'}\n", "image.registry: expected host"),
        (
            "schema: 1\nrelease: v1.2.3\n",
            "config/shop.yaml:2: release: there is no 'v1.2.3'; there are: v3.4.3, v4.10",
        ),
        (
            "schema: 1\nos: {arch: riscv64}\n",
            "config/shop.yaml:2: os.arch: v4.9.38 has no 'riscv64'; there are: amd64, arm64",
        ),
        (
            "schema: 1\nos: {distribution: arch}\n",
            "os.distribution: v4.9.38 has no 'arch'; there are: ubuntu, debian, open",
        ),
        ("schema: 1\nos: {version: 18}\n", "os.version: ubuntu has no '18' here; there are: 20.04, 22.04, 24.04"),
        ("schema: 1\nos: {distribution: rhel, version: 9}\n", "os.base_image: v4.9.38 has no base image for rhel"),
        ("schema: 1\nos: {packages: ['a; b']}\n", "os.packages.0: expected a package name"),
        (
            "schema: 1\nkubernetes: {distribution: k3d}\n",
            "kubernetes.distribution: v4.9.38 has no 'k3d'; there are: k3s, rke2",
        ),
        (
            "schema: 1\nkubernetes: {versions: 1.2.3}\n",
            "kubernetes.versions: v4.9.38 has no k3s 1.2.3; there are: 1.26.14",
        ),
        ("schema: 1\nkubernetes: {versions: []}\n", "kubernetes.versions: name at least one version, or all"),
        (
            "schema: 1\nkubernetes: {versions: [1.33.6, 1.33.6]}\n",
            "kubernetes.versions: a version stands there twice",
        ),
        ("schema: 1\nos: {bootstrap: bookworm}\n", "os.bootstrap: only the distribution debian"),
        ("schema: 1\nimage: {repository: '{{ nothing }}'}\n", "config/shop.yaml:2: image.repository: cannot resolve"),
        (
            "schema: 1\npe_version: '{{ image.tag }}'\nimage: {tag: '{{ image.tag }}'}\n",
            "the expression goes in a circle",
        ),
        (
            "schema: 1\nimages: {k8s_package_repository: ''}\n",
            "config/shop.yaml:2: images.k8s_package_repository: v4.9.38 needs",
        ),
        (
            "schema: 1\nimages: {base: {ubuntu: ''}}\n",
            "os.base_image: v4.9.38 has no base image for ubuntu; name one",
        ),
        ("schema: 1\nproxy: {http: proxy:3128}\n", "proxy.http: expected a proxy address"),
        ("schema: 1\ncerts: ../certs\n", "certs: expected a path inside the repository"),
    ],
)
def test_wrong_configuration(repository: Path, text: str, expected: str) -> None:
    assert expected in problem(repository, text)


def test_all_problems_at_once(repository: Path) -> None:
    shown = problem(repository, "schema: 1\nimage:\n  tag: A\n  registry: http://x\niso: {nam: x}\n")
    assert shown.startswith("3 problems in the configuration:")
    for line in (
        "config/shop.yaml:3: image.tag",
        "config/shop.yaml:4: image.registry",
        "config/shop.yaml:5: iso.nam",
    ):
        assert line in shown


def test_a_secret_value_is_refused_and_not_shown(repository: Path) -> None:
    shown = problem(repository, "schema: 1\nsecrets: {edge_host_token: hunter2-hunter2}\n")
    assert "secrets.edge_host_token: expected a reference" in shown
    assert "hunter2" not in shown


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("image.tag", "--set image.tag: expected key=value"),
        ("image.tg=x", "--set image.tg: no such key; did you mean image.tag?"),
        ("os.packages=[x", "os.packages: not valid YAML"),
        ("image.tag=A", "--set: image.tag: expected lower-case"),
    ],
)
def test_wrong_settings(repository: Path, setting: str, expected: str) -> None:
    assert expected in problem(repository, settings=[setting])


def test_wrong_variable(repository: Path) -> None:
    with pytest.raises(InputError, match="EDGEBUILD_IMAGE_TG: no such key; did you mean EDGEBUILD_IMAGE_TAG"):
        load_environment(repository, "shop", environ={"EDGEBUILD_IMAGE_TG": "x"})


@pytest.mark.parametrize("name", ["nowhere", "../shop", ""])
def test_missing_environment(repository: Path, name: str) -> None:
    with pytest.raises(InputError, match="does not exist; there are: shop"):
        load_environment(repository, name, environ={})


@pytest.mark.parametrize("name", ["my shop", "-shop", "shop\n", "$(id)", "s" * 64, "ümlaut"])
def test_a_name_that_no_image_can_have(repository: Path, name: str) -> None:
    (repository / f"config/{name}.yaml").write_text("schema: 1\n")
    with pytest.raises(InputError, match="expected letters, digits"):
        load_environment(repository, name, environ={})


def test_not_text(repository: Path) -> None:
    (repository / "config/shop.yaml").write_bytes(b"schema: 1\n\xff")
    with pytest.raises(InputError, match=r"config/shop.yaml: not UTF-8"):
        load_environment(repository, "shop", environ={})


def test_every_key_of_the_model_is_in_the_defaults(root: Path) -> None:
    """The defaults are the reference: a release adds no key of its own, and no key lacks a comment or a block."""
    layer = parse_layer((root / "config/defaults.yaml").read_text(encoding="utf-8"), "defaults")
    from edgebuild.model import Environment

    assert {name.removesuffix("_") for name in Environment.model_fields} == set(layer.values)


@pytest.mark.parametrize("name", ["demo", "basic", "advanced"])
def test_shipped_environments(root: Path, name: str) -> None:
    assert name in environment_names(root)
    assert load_environment(root, name, environ={}).schema_ == 1
