"""What an environment's upstream tags and package lists were resolved to: config/<environment>.lock.yaml. Pure.

A lock says what it was made for, so that one which the configuration has outgrown is known without any network.
"""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, Field, ValidationError

from edgebuild.errors import InputError
from edgebuild.layers import parse_layer
from edgebuild.model import Environment
from edgebuild.plan import upstream_sources
from edgebuild.values import Section

STAGES = ("base-image", "tools")  # of the Dockerfile, whose packages are locked
HEAD = """\
# What the upstream images and packages of environment {name} are, as `./inv lock --env {name}` found them.
# Builds take these, or fail. Commit this file; do not edit it: `./inv lock --env {name} --update` resolves anew.
# Not in here: the Kubernetes packages. luet takes them from its repository by name and version only.
"""

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9+._-]*$")]
# Several versions of one package (kernels, with rpm) stand in one text.
Version = Annotated[str, Field(pattern=r"^[A-Za-z0-9.+~:^_-]+( [A-Za-z0-9.+~:^_-]+)*$")]


def _check_stages(packages: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    if set(packages) != set(STAGES):
        raise ValueError(f"expected the packages of {' and '.join(STAGES)}")
    return packages


class Lock(Section):
    """One lock file. `images` are upstream references, before mirrors; `base` is base.tar of a bootstrapped base."""

    schema_: Annotated[int, Field(alias="schema", ge=1, le=1)] = 1
    made_for: dict[str, str]
    images: dict[str, Digest]
    base: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
    packages: Annotated[dict[str, dict[Name, Version]], AfterValidator(_check_stages)]

    def pinned(self, reference: str, source: str) -> str:
        """`reference`, which may name a mirror, at the digest of its `source`."""
        digest = self.images.get(source)
        return f"{reference.partition('@')[0]}@{digest}" if digest else reference


def lock_path(name: str) -> str:
    """Where the lock of environment `name` lies, relative to the repository."""
    return f"config/{name}.lock.yaml"


def lockable_images(environment: Environment) -> dict[str, str]:
    """The references that a build of this environment pulls by digest, before mirrors, under their names."""
    unused = {"k8s_package_repository"}
    if environment.kubernetes.payload == "none":
        unused |= {"kairos_provider", "third_party"}
    return {name: source for name, source in upstream_sources(environment).items() if name not in unused}


def asked(environment: Environment, customizations: str) -> dict[str, str]:
    """What decides on images and packages; `customizations` are the fork's own lines of Dockerfile.j2."""
    os_ = environment.os
    system = environment.distributions[os_.distribution]
    lines = [line.strip() for line in customizations.splitlines()]
    own = "\n".join(line for line in lines if line and not line.startswith("#"))
    found = {
        "release": environment.release,
        "os.distribution": os_.distribution,
        "os.version": os_.version,
        "os.arch": os_.arch,
        "os.bootstrap": os_.bootstrap,
        "os.update_kernel": str(os_.update_kernel).lower(),
        "os.packages": " ".join(os_.packages),
        "packages of the release": " ".join([*system.packages, *system.common_packages]),
        "own lines of Dockerfile.j2": f"sha256:{hashlib.sha256(own.encode()).hexdigest()}" if own else "",
    }
    return {**found, **{f"image {name}": source for name, source in lockable_images(environment).items()}}


def staleness(lock: Lock, now: Mapping[str, str]) -> list[str]:
    """How what is asked now differs from what the lock was made for, in words; empty when it does not."""
    found = []
    for key in sorted(now.keys() | lock.made_for.keys()):
        then, today = lock.made_for.get(key, ""), now.get(key, "")
        if then != today:
            shown = key == "own lines of Dockerfile.j2"
            found.append(f"{key}: changed" if shown else f"{key}: locked for {then or 'none'}, now {today or 'none'}")
    found += [f"image {source} has no digest" for source in _sources(now) if source not in lock.images]
    return found


def _sources(made_for: Mapping[str, str]) -> list[str]:
    return [source for key, source in made_for.items() if key.startswith("image ")]


def difference(old: Lock | None, new: Lock) -> list[str]:
    """What the new lock changes, in words."""
    words = []
    images = old.images if old else {}
    for source in sorted(images.keys() | new.images.keys()):
        then, now = images.get(source), new.images.get(source)
        if then != now:
            moved = f"digest moved from {_short(then)} to {_short(now)}" if then and now else ""
            words.append(f"image {source}: {moved or (_short(now) if now else 'removed')}")
    if old and old.base != new.base:
        words.append(f"base made from packages: its SHA-256 is now {new.base[:12] or 'none'}")
    for stage in STAGES:
        before, after = old.packages[stage] if old else {}, new.packages[stage]
        if not before:
            words.append(f"{stage}: {len(after)} packages")
            continue
        for name in sorted(before.keys() | after.keys()):
            then, now = before.get(name), after.get(name)
            if then != now:
                change = f"{then} -> {now}" if then and now else f"{then} removed" if then else f"{now} added"
                words.append(f"package {name} {change} ({stage})")
    return words


def _short(digest: str | None) -> str:
    return (digest or "")[:19]


def parse_lock(text: str, source: str) -> Lock:
    """A lock file's text. Raises InputError with file and line for whatever no `inv lock` has written."""
    name = source.rpartition("/")[2].removesuffix(".lock.yaml")
    hint = f"take back the edit, or: rm {source} && ./inv lock --env {name}"
    try:
        layer = parse_layer(text, source)
        return Lock.model_validate(layer.values)
    except InputError as error:
        raise InputError(error.message, hint=hint) from error
    except ValidationError as error:
        problems = []
        for detail in error.errors():
            key = tuple(str(part) for part in detail["loc"] if part != "[key]")
            said = str(detail["msg"]).removeprefix("Value error, ").lower()
            problems.append(f"{layer.where(key)}: {'.'.join(key)}: {said}")
        raise InputError.from_problems(problems, hint=hint) from error


def lock_text(lock: Lock, name: str) -> str:
    """The file, sorted: the same lock is the same text."""
    values: dict[str, Any] = lock.model_dump(by_alias=True)
    return HEAD.format(name=name) + yaml.safe_dump(values, sort_keys=True, width=10**6, allow_unicode=True)


def parse_packages(text: str) -> dict[str, str]:
    """The lines `name version` that a stage's package databases tell, as a mapping; sorted."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, _, version = line.partition(" ")
        found.setdefault(name, []).append(version)
    return {name: " ".join(sorted(set(found[name]))) for name in sorted(found)}


def package_lines(packages: Mapping[str, str]) -> list[str]:
    """The opposite: what the check in the Dockerfile compares with."""
    return sorted(f"{name} {version}" for name, versions in packages.items() for version in versions.split())


def apt_preferences(packages: Mapping[str, str]) -> str:
    """Preferences by which apt takes these versions as long as the archive has them, and never goes back."""
    single = [(name, version) for name, version in sorted(packages.items()) if " " not in version]
    return "\n\n".join(f"Package: {name}\nPin: version {version}\nPin-Priority: 995" for name, version in single)


def pinned_package(family: str, name: str, packages: Mapping[str, str]) -> str:
    """A package as zypper and dnf are asked for it in its locked version; apt has preferences for that."""
    version = packages.get(name, "")
    if family == "apt" or not version or " " in version:
        return name
    return f"{name}={version}" if family == "zypper" else f"{name}-{version}"
