"""What a build of an environment pulls from elsewhere: images, and packages of system and Kubernetes. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from edgebuild.lock import Lock, lockable_images
from edgebuild.model import Environment
from edgebuild.plan import mirrored
from edgebuild.stages import parse_stages


@dataclass(frozen=True)
class Pull:
    """One image. `source` is its upstream reference without digest, `asked` where it is pulled now.

    `digest` is empty where neither lock nor configuration pins one. `platforms` are such as linux/amd64.
    """

    source: str
    asked: str
    digest: str
    platforms: tuple[str, ...]
    environments: tuple[str, ...]


def canonical(reference: str) -> str:
    """The reference with its host: debian:12 is docker.io/library/debian:12."""
    return mirrored(reference, {"docker.io": "docker.io"})


def pulled_images(name: str, environment: Environment, lock: Lock | None, dockerfile: str) -> list[Pull]:
    """The images that this environment's rendered Dockerfile stands on, a fork's own among them."""
    mirrors = environment.registries.mirrors
    known = {}
    for source in lockable_images(environment).values():
        plain, _, digest = source.partition("@")
        digest = digest or (lock.images.get(source, "") if lock else "")
        known[mirrored(plain, mirrors)] = (canonical(plain), digest)
    found = {}
    for stage in parse_stages(dockerfile).values():
        for image in stage.images:
            asked, _, digest = image.partition("@")
            source, locked = known.get(asked, (canonical(asked), ""))
            found[source, digest or locked] = canonical(asked)
    platform = f"linux/{environment.os.arch}"
    return [Pull(source, asked, digest, (platform,), (name,)) for (source, digest), asked in found.items()]


def merged(pulls: Iterable[Pull]) -> list[Pull]:
    """The same image for several environments or platforms once, sorted by name."""
    found: dict[tuple[str, str], Pull] = {}
    for each in pulls:
        key = (each.source, each.digest)
        other = found.get(key, each)
        found[key] = replace(
            other,
            platforms=tuple(sorted({*other.platforms, *each.platforms})),
            environments=tuple(dict.fromkeys((*other.environments, *each.environments))),
        )
    return [found[key] for key in sorted(found)]


def kubernetes_tags(environment: Environment, tags: Iterable[str]) -> list[str]:
    """Of a luet repository's tags those that the environment's versions need: its lists, and their packages.

    luet tags a package [name]-[category]-[version], and its lists by their file names.
    """
    wanted = []
    for package in environment.kubernetes_packages.get(environment.kubernetes.distribution, ()):
        for version in environment.versions:
            name, _, exact = package.replace("{version}", version).partition("@")
            of, version_of = re.escape(name.rpartition("/")[2]), re.escape(exact.replace("+", "-"))
            wanted.append(f"{of}-(.*-)?{version_of}(?![0-9.]).*")
    pattern = re.compile("|".join([r".*(repository|tree|meta).*", *wanted]))
    return sorted(tag for tag in set(tags) if pattern.fullmatch(tag))


def mirror_lines(mirrors: Mapping[str, str]) -> str:
    """The lines for an environment's file."""
    return "registries:\n  mirrors:\n" + "".join(f"    {host}: {mirrors[host]}\n" for host in sorted(mirrors))
