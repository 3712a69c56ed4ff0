"""Plan and environment in, text out: Dockerfile, bake file, boot menu, cluster profile. Pure, but compiled once."""

import contextlib
import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import jinja2
import yaml

from edgebuild import quoting
from edgebuild.errors import InputError
from edgebuild.inputs import Inputs
from edgebuild.lock import Lock, apt_preferences, package_lines, pinned_package
from edgebuild.model import Environment
from edgebuild.offline import without_network
from edgebuild.packages import package_distributions
from edgebuild.plan import Plan, Target, profile_values, upstream_images, upstream_sources
from edgebuild.values import FIXED_EPOCH, OS_FAMILIES

MARKER = "# Add any other image customizations here"
TEMPLATES = Path(__file__).parent / "templates"
BOOT_TOOLS = "boot-tools"
TOOLS = "tools"


def render_dockerfile(
    plan: Plan,
    environment: Environment,
    inputs: Inputs,
    source: str,
    lock: Lock | None = None,
    *,
    check_lock: bool = True,
) -> str:
    """The Dockerfile of all image targets. `source` is the text of Dockerfile.j2.

    What stands below the marked line of `source` is the fork's; it goes into the stage `customized`.
    With a `lock` images and packages are the locked ones; `check_lock` says that other packages are an error.
    Raises InputError with template and line.
    """
    pipeline, own = split_source(source)
    jinja = template_environment(("Dockerfile.j2", pipeline), ("customizations", own))
    try:
        values = {**_dockerfile_values(plan, environment, inputs), **_lock_values(environment, lock, check_lock)}
        own_lines = jinja.get_template("customizations").render(values).strip()
        values["customizations"] = without_network(own_lines) if environment.offline else own_lines
        text = jinja.get_template("Dockerfile.j2").render(values)
    except jinja2.TemplateSyntaxError as error:
        raise InputError(f"{error.name}:{error.lineno}: {error.message}") from error
    except jinja2.TemplateError as error:
        raise InputError(f"{_template_line(error)}: {error}") from error
    except ValueError as error:
        raise InputError(f"{_template_line(error)}: {error}") from error
    return _without_blank_runs(text)


def installed_script() -> str:
    """Shell text that prints `name version` of every package of the system that it runs on."""
    return template_environment().get_template("installed.j2").render() + "installed\n"


def split_source(source: str) -> tuple[str, str]:
    """Dockerfile.j2 as the pipeline and the fork's own lines. Raises InputError when the line between is missing."""
    pipeline, marker, own = source.partition(MARKER)
    if not marker:
        raise InputError(
            f"Dockerfile.j2: the line {MARKER!r} is missing", hint="put it back; your own instructions go below it"
        )
    return pipeline, own


class CompiledTemplates(jinja2.FileSystemBytecodeCache):
    """Templates compiled beside them, as Python keeps modules; where nothing may be written, nothing is kept."""

    def dump_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
        if not sys.dont_write_bytecode:
            with contextlib.suppress(OSError):
                Path(self.directory).mkdir(exist_ok=True)
                super().dump_bytecode(bucket)


@functools.lru_cache(maxsize=4)
def template_environment(*fork: tuple[str, str]) -> jinja2.Environment:
    """Jinja over the package's templates, and the fork's own (name, text); a name that is not there is an error."""
    texts = dict(fork)

    def own(name: str) -> tuple[str, str, None] | None:
        return (texts[name], name, None) if name in texts else None  # its name is its file name in errors

    environment = jinja2.Environment(  # noqa: S701 - what is rendered is not HTML; values are quoted by filters
        loader=jinja2.ChoiceLoader([jinja2.FunctionLoader(own), jinja2.FileSystemLoader(TEMPLATES)]),
        bytecode_cache=CompiledTemplates(str(TEMPLATES / "__pycache__")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["sh"] = quoting.shell
    environment.filters["dockerfile"] = quoting.dockerfile_word
    environment.filters["grub"] = quoting.grub
    environment.filters["copied_to"] = quoting.dockerfile_copy
    return environment


def _template_line(error: Exception) -> str:
    frames = []
    trace = error.__traceback__
    while trace:
        name = trace.tb_frame.f_code.co_filename
        if name.endswith(".j2") or name == "customizations":
            frames.append(f"{Path(name).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return frames[-1] if frames else "Dockerfile.j2"


def _without_blank_runs(text: str) -> str:
    # A blank line after each script: hadolint reads no instruction right behind one.
    lines = [line.rstrip() for line in text.strip().replace("\nEOF\n", "\nEOF\n\n").split("\n")]
    kept = [line for number, line in enumerate(lines) if line or lines[number - 1]]
    return "\n".join(kept) + "\n"


def _dockerfile_values(plan: Plan, environment: Environment, inputs: Inputs) -> dict[str, Any]:
    distribution = environment.kubernetes.distribution
    pipeline = environment.pipeline
    return {
        "package_mirrors": {
            name: {"address": environment.package_mirrors[name], "family": OS_FAMILIES[name]}
            for name in package_distributions(environment)
            if name in environment.package_mirrors
        },
        **{name: getattr(environment, name) for name in ("os", "kubernetes", "iso", "secrets", "pipeline")},
        "environment": plan.environment,
        "release": plan.release,
        "platform": plan.platform,
        "distributions": environment.distributions,
        "family": OS_FAMILIES[environment.os.distribution],
        "payload": environment.kubernetes.payload != "none",
        "system_extensions": pipeline.system_extensions and not environment.kubernetes.bundle,
        "epoch": environment.iso.epoch,
        "fixed_epoch": FIXED_EPOCH,
        "bootstrap_tar": f"{bootstrap_folder(environment)}/base.tar",
        "certificates": inputs.certificates,
        "certificate_name": lambda path: PurePosixPath(path).stem + ".crt",
        "hardware_specs": inputs.hardware_specs,
        "overlay": bool(inputs.overlay),
        "overlay_etc": inputs.overlay_etc,
        "third_party_program": lambda name: (
            f"/binaries/{name}/latest/{pipeline.third_party_flavor}/{environment.os.arch}/{name}"
        ),
        "provider_images": [
            {
                "name": target.name,
                "payload": f"kubernetes-{str(target.kubernetes_version).replace('.', '-')}",
                "packages": [
                    package.replace("{version}", str(target.kubernetes_version))
                    for package in environment.kubernetes_packages.get(distribution, ())
                ],
            }
            for target in plan.of_kind("provider-image")
        ],
    }


def _lock_values(environment: Environment, lock: Lock | None, check_lock: bool) -> dict[str, Any]:
    packages = {stage: found for stage, found in lock.packages.items() if found} if lock else {}
    sources = upstream_sources(environment)
    family = OS_FAMILIES[environment.os.distribution]

    def pinned(names: Sequence[str]) -> list[str]:
        return [pinned_package(family, name, packages.get("base-image", {})) for name in names]

    return {
        "locked": {
            stage: {
                "preferences": apt_preferences(found) if stage == TOOLS or family == "apt" else "",
                "packages": "\n".join(package_lines(found)),
            }
            for stage, found in packages.items()
        },
        "check_lock": check_lock,
        "pinned": pinned,
        "upstream": {
            name: lock.pinned(image, sources[name]) if lock else image
            for name, image in upstream_images(environment).items()
        },
    }


def bootstrap_folder(environment: Environment) -> str:
    """Where base.tar of a bootstrapped base lies, relative to the repository."""
    return f"build/.cache/bootstrap/{environment.os.bootstrap}-{environment.os.arch}"


def render_bake(plan: Plan, environment: Environment, dockerfile: str) -> str:
    """The bake file (JSON) with one target for each image target; it holds the Dockerfile itself."""
    shared: dict[str, Any] = {
        "context": ".",
        "dockerfile-inline": dockerfile,
        "platforms": [plan.platform],
        "args": {**proxy_variables(environment), "SOURCE_DATE_EPOCH": str(environment.iso.epoch)},
        "output": ["type=docker"],
    }
    if environment.secrets.luet_auth:
        shared["secret"] = ["id=luet_auth,env=EDGEBUILD_SECRET_LUET_AUTH"]
    targets: dict[str, Any] = {"_pipeline": shared}
    for target in plan.targets:
        if target.kind != "iso":
            targets[target.name] = {
                "inherits": ["_pipeline"],
                "target": target.name,
                "tags": list(target.tags),
                "labels": _labels(environment, target),
            }
    for stage in (TOOLS, BOOT_TOOLS):
        targets[stage] = {
            "inherits": ["_pipeline"],
            "target": stage,
            "tags": [f"edgebuild/{stage}:{plan.environment}"],
        }
    return json.dumps(quoting.hcl({"target": targets}), indent=2) + "\n"


def _labels(environment: Environment, target: Target) -> dict[str, str]:
    labels = {"org.opencontainers.image.version": environment.pe_version}
    if target.kubernetes_version:
        labels["org.opencontainers.image.title"] = (
            f"{environment.kubernetes.distribution} {target.kubernetes_version} on {environment.os.distribution}"
        )
        labels["io.edgebuild.kubernetes.version"] = target.kubernetes_version
        labels["io.edgebuild.kubernetes.payload"] = environment.kubernetes.payload
    return labels


def proxy_variables(environment: Environment) -> dict[str, str]:
    """The proxy as BuildKit's predefined build arguments, which stay out of images and cache keys."""
    proxy = environment.proxy
    values = {"HTTP_PROXY": proxy.http, "HTTPS_PROXY": proxy.https, "NO_PROXY": ",".join(proxy.no_proxy)}
    filled = {name: value for name, value in values.items() if value}
    return {**filled, **{name.lower(): value for name, value in filled.items()}}


def render_profile(environment: Environment) -> str:
    """The manifest of the BYOS Edge OS pack: the guide's YAML, with the values of this environment."""
    pack = ".spectro.pack.edge-native-byoi.options.system"
    macros = {
        "registry": f"{{{{ {pack}.registry }}}}",
        "repository": f"{{{{ {pack}.repo }}}}",
    }
    version = "{{ .spectro.system.kubernetes.version }}"
    parts = [f"{{{{ {pack}.k8sDistribution }}}}", version, f"{{{{ {pack}.peVersion }}}}"]
    if environment.image.tag:
        parts.append(f"{{{{ {pack}.customTag }}}}")
    uri = f"{macros['registry']}/{macros['repository']}:{'-'.join(parts)}"
    options = {"system.uri": uri, **profile_values(environment)}
    lines = [
        "pack:",
        "  content:",
        "    images:",
        f'      - image: "{{{{{pack}.uri}}}}"',
        "options:",
        *(f"  {name}: {_yaml_text(value)}" for name, value in options.items()),
    ]
    return "\n".join(lines) + "\n"


def _yaml_text(value: str) -> str:
    """A text as YAML on one line, quoted only where it must be."""
    return yaml.safe_dump(value, width=10**6, default_style='"' if "{{" in value else None).split("\n")[0]
