"""The builders of an environment: made known, checked, removed."""

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from edgebuild import builders
from edgebuild.builders import Builder, Told, read_inspect
from edgebuild.builderset import DockerBuilder, KubernetesBuilder
from edgebuild.doctor import Check, format_check
from edgebuild.engine import check_versions
from edgebuild.errors import InputError, ToolError
from edgebuild.run import run
from edgebuild.session import Session

ANSWER_SECONDS = 20
POD_SECONDS = 300
UPDATE = "update it there, or buildx here; or leave the feature out"


def open_builders(session: Session) -> list[Builder]:
    """The environment's builders. Raises InputError when it names none."""
    if not session.environment.builders:
        raise InputError(
            f"config/{session.plan.environment}.yaml names no builders: all is built by the engine here",
            hint="docs/scale.md shows what `builders` holds",
        )
    return builders.open_set(session.environment.builders, session.root)


def create(session: Session) -> None:
    """Make docker and buildx know the environment's builders; those that they know stay."""
    for each in open_builders(session):
        made = make_known(each, session.say)
        sys.stdout.write(f"{each.name:<16} {each.known_as}{'' if made else ' (there already)'}\n")
    session.say("./inv builder.check tells whether they can be used")


def make_known(builder: Builder, say: Callable[[str], None]) -> bool:
    """Create it where it is not known yet; returns whether it was. Raises ToolError with what buildx says."""
    argv = builders.create_argv(builder)
    if not argv or run(builders.is_known_argv(builder), check=False).returncode == 0:
        return False
    if old := builders.too_old(builders.features(builder.settings, cached=False), {"buildx": buildx_version()}):
        raise ToolError(f"builder {builder.name} cannot be created: {'; '.join(old)}", hint=UPDATE)
    say(f"making builder {builder.name} known as {builder.known_as}")
    result = run(argv, check=False)
    if result.returncode:
        raise ToolError(
            f"builder {builder.name} cannot be created: {_last(result.stderr)}",
            hint=f"see builders.{builder.name} in the environment's file",
        )
    return True


def remove(session: Session) -> None:
    """Make docker and buildx forget the environment's builders, and what was said of them before."""
    contexts, listed = run(builders.CONTEXTS).stdout, run(builders.BUILDERS, check=False).stdout
    for each in open_builders(session):
        calls = builders.old_ones(each, contexts, listed)
        for argv in calls:
            session.say(f"removing {argv[-1]}")
            run(argv)
        what = "removed" if calls else "was not there" if each.is_ours else "a docker context of yours: stays"
        sys.stdout.write(f"{each.name:<16} {what}\n")


def check(session: Session) -> None:
    """Print a line for each builder. Raises ToolError when one cannot be used."""
    found = examine(session, open_builders(session))
    for each in found:
        sys.stdout.write(format_check(each) + "\n")
    if bad := [each.name for each in found if each.status == "error"]:
        raise ToolError(f"{len(bad)} of {len(found)} builders cannot be used: {', '.join(bad)}")


def examine(session: Session, asked: Sequence[Builder]) -> list[Check]:
    """Each builder as it is now, all at the same time; what docker or buildx does not know yet is created."""
    buildx = buildx_version()
    cached = bool(session.environment.cache.registry)

    def one(builder: Builder) -> Check:
        try:
            make_known(builder, session.say)
            told, engine, seconds = ask(builder)
        except ToolError as error:
            return Check(builder.name, "error", error.message.splitlines()[0], error.hint or remedy(builder))
        return judge(builder, told, engine=engine, buildx=buildx, seconds=seconds, cached=cached)

    with ThreadPoolExecutor(len(asked)) as threads:
        return list(threads.map(one, asked))


def buildx_version() -> str:
    """Such as v0.13.1; empty where there is no buildx."""
    told = run(["docker", "buildx", "version"], check=False).stdout.split()
    return told[1] if len(told) > 1 else ""


def ask(builder: Builder) -> tuple[Told, str, float]:
    """What inspect tells, the version of a docker engine, and how long an answer takes. Raises ToolError."""
    pods = isinstance(builder.settings, KubernetesBuilder)
    started = time.monotonic()
    result = run(
        builders.inspect_argv(builder, start=pods), check=False, timeout=POD_SECONDS if pods else ANSWER_SECONDS
    )
    seconds = time.monotonic() - started
    if result.returncode:
        raise ToolError(_last(result.stderr), hint=remedy(builder))
    told = read_inspect(result.stdout)
    engine = ""
    if isinstance(builder.settings, DockerBuilder) and not told.error:
        engine = run([*builder.docker, "version", "--format", "{{.Server.Version}}"], timeout=60).stdout.strip()
    return told, engine, seconds


def judge(builder: Builder, told: Told, *, engine: str, buildx: str, seconds: float, cached: bool) -> Check:
    """A builder by what it told: reachable, new enough, of the platforms that the file promises."""
    if told.error:
        return Check(builder.name, "error", told.error, remedy(builder))
    problems = builders.too_old(
        builders.features(builder.settings, cached=cached), {"buildx": buildx, "BuildKit": told.buildkit}
    )
    if engine and (old := check_versions(engine, buildx)):
        problems.append(old)
    if problems:
        return Check(builder.name, "error", "; ".join(problems), UPDATE)
    if missing := sorted(set(builder.settings.platforms) - told.platforms):
        return Check(
            builder.name,
            "error",
            f"does not offer {', '.join(missing)}, but {', '.join(sorted(told.platforms))}",
            f"set builders.{builder.name}.platforms to what it has, or register emulation there (binfmt)",
        )
    program = f"engine {engine}" if engine else f"BuildKit {told.buildkit}"
    offered = ", ".join(builder.settings.platforms)
    return Check(
        builder.name, "ok", f"{program}, {offered}, {builder.settings.jobs} at a time, answers in {seconds:.1f} s"
    )


def remedy(builder: Builder) -> str:
    """What to try when a builder does not answer."""
    settings = builder.settings
    if isinstance(settings, DockerBuilder):
        where = "" if settings.endpoint == "default" else f"--context {builder.known_as} "
        return f"try: docker {where}version"
    if isinstance(settings, KubernetesBuilder):
        return f"try: kubectl --namespace {settings.namespace} get pods"
    return f"is buildkitd running at {settings.endpoint}, and are the certificates each other's? See docs/scale.md"


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].removeprefix("ERROR: ") if lines else "no answer"
