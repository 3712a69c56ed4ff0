"""A build that asks nobody but the mirrors: what would ask elsewhere is refused, and looked for afterwards."""

import re
from collections.abc import Iterable, Mapping, Sequence

from edgebuild.errors import InputError, VerificationError
from edgebuild.model import Environment
from edgebuild.packages import package_distributions
from edgebuild.plan import mirrored
from edgebuild.pulls import Pull
from edgebuild.stages import instructions

SYNTAX = re.compile(r"^#\s*syntax\s*=\s*(\S+)", re.IGNORECASE)
REMOTE = re.compile(r"\bADD\s+(?:--\S+\s+)*((?:https?|git|ssh)://\S+|git@\S+)")


def is_below(reference: str, mirrors: Mapping[str, str]) -> bool:
    """Whether an image comes from one of the mirrors."""
    return any(reference.startswith(f"{mirror}/") for mirror in mirrors.values())


def check_offline(name: str, environment: Environment, pulls: Sequence[Pull], dockerfile: str) -> None:
    """Raise InputError that names everything which would be asked for elsewhere, or could be another tomorrow."""
    mirrors = environment.registries.mirrors
    problems = []
    hints = []
    if elsewhere := [pull for pull in pulls if not is_below(pull.asked, mirrors)]:
        problems += [f"{pull.asked}: registries.mirrors has no mirror for it" for pull in elsewhere]
        hints.append("./inv mirror.import prints the lines for registries.mirrors")
    if loose := [pull for pull in pulls if not pull.digest]:
        problems += [f"{pull.source}: no digest pins it" for pull in loose]
        hints.append(f"./inv lock --env {name} pins images")
    luet = environment.images.k8s_package_repository
    if environment.kubernetes.payload == "luet" and not is_below(mirrored(luet, mirrors), mirrors):
        problems.append(f"{luet}: the Kubernetes packages: registries.mirrors has no mirror for it")
    for distribution in package_distributions(environment):
        if distribution not in environment.package_mirrors:
            problems.append(f"package_mirrors.{distribution}: is not set, and build steps install its packages")
            hints.append(f"package_mirrors: {{{distribution}: http://…}} in config/{name}.yaml")
    if syntax := SYNTAX.match(dockerfile):
        problems.append(f"Dockerfile.j2: syntax={syntax[1]}: is pulled; BuildKit's own is enough")
    for instruction in instructions(dockerfile):
        if remote := REMOTE.match(instruction.replace("\\\n", " ")):
            problems.append(f"Dockerfile.j2: ADD {remote[1]}: put the file into overlay/ instead")
    if problems:
        lines = "".join(f"\n  {problem}" for problem in dict.fromkeys(problems))
        raise InputError(f"offline: this build would ask elsewhere:{lines}", hint="; ".join(dict.fromkeys(hints)))


def without_network(own: str) -> str:
    """A fork's own lines, each RUN without network but where it says --network itself."""
    found = []
    for instruction in instructions(own):
        word, _, rest = instruction.partition(" ")
        closed = word.upper() == "RUN" and "--network" not in rest.partition("<<")[0]
        found.append(f"RUN --network=none {rest}" if closed else instruction)
    return "\n".join(found)


def prove(asked: Iterable[str], mirrors: Mapping[str, str]) -> None:
    """Raise VerificationError when BuildKit asked for anything that is not below a mirror."""
    if elsewhere := sorted({each for each in asked if not is_below(each, mirrors)}):
        lines = "".join(f"\n  {each}" for each in elsewhere)
        raise VerificationError(
            f"offline: the build asked elsewhere, and is not shown:{lines}",
            hint="put a mirror for it into registries.mirrors: ./inv mirror.plan",
        )
