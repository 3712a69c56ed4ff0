"""One call of a task: the environment, its plan, and everything a build is made from, checked."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgebuild import cloudconfig, grub, render, report, secrets
from edgebuild.commit import dated
from edgebuild.config import environment_names, load_environment
from edgebuild.errors import InputError
from edgebuild.host import Consent
from edgebuild.inputs import Inputs, find_inputs
from edgebuild.lock import STAGES, Lock, asked, lock_path, lockable_images, parse_lock, staleness
from edgebuild.model import Environment
from edgebuild.offline import check_offline
from edgebuild.plan import Plan, make_plan
from edgebuild.pulls import canonical, pulled_images
from edgebuild.results import Results

DEFAULT_PASSWORD = "kairos"  # noqa: S105 - the guide's, known to everybody


def say(text: str) -> None:
    """One line for the person who waits; standard output is for results."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def ask(question: str) -> bool:
    """A yes-or-no question on the terminal; Enter means yes."""
    return input(secrets.redact(f"{question} [Y/n] ")).strip().lower() in {"", "y", "yes"}


@dataclass(frozen=True)
class Session:
    """One call of a task: the repository, one environment, and how to talk to the person."""

    root: Path
    environment: Environment
    plan: Plan
    say: Callable[[str], None] = field(default=say)
    ask: Callable[[str], bool] | None = None
    lock: Lock | None = None

    @property
    def consent(self) -> Consent:
        return Consent(self.say, self.ask, os.environ)

    @property
    def results(self) -> Results:
        return Results(self.root / "build" / self.plan.environment)


def open_session(root: Path, name: str, settings: Sequence[str]) -> Session:
    """Load the environment and plan it; nothing is done yet."""
    environment = dated(load_environment(root, name, settings=settings), root, say)
    references = [value for _, value in environment.secrets] + [value for _, value in environment.signing]
    secrets.hidden.variables |= {value.removeprefix("env:") for value in references if value.startswith("env:")}
    terminal = sys.stdin.isatty() and sys.stderr.isatty()
    plan = make_plan(name, environment)
    return Session(root, environment, plan, ask=ask if terminal else None, lock=read_lock(root, name, environment))


def open_sessions(root: Path, names: Sequence[str], settings: Sequence[str]) -> list[Session]:
    """A session for each of these environments, or for `all`; each once, in their order."""
    asked = [each for name in names for each in (environment_names(root) if name == "all" else [name])]
    return [open_session(root, name, settings) for name in dict.fromkeys(asked)]


def read_lock(root: Path, name: str, environment: Environment) -> Lock | None:
    """The environment's lock; None where there is none or the environment wants none. Raises InputError."""
    file = root / lock_path(name)
    if not environment.lock or not file.exists():
        return None
    try:
        return parse_lock(file.read_text(encoding="utf-8"), lock_path(name))
    except UnicodeDecodeError as error:
        raise InputError(f"{lock_path(name)}: not UTF-8 text: {error.reason} at byte {error.start}") from error


def asked_now(session: Session) -> dict[str, str]:
    """What a lock of this environment would be made for."""
    return asked(session.environment, render.split_source(_fork_file(session.root, "Dockerfile.j2"))[1])


@dataclass(frozen=True)
class Prepared:
    """Everything a build is made from, checked: the repository's files, rendered texts and secrets' values."""

    inputs: Inputs
    texts: dict[str, str]  # file name below inputs/ to text, without any secret
    user_data: str  # with secrets
    secret_values: dict[str, str]
    for_sites: bool = False  # user-data.j2 asks for values of a site, and stands there as it is


def prepare(session: Session, *, with_secrets: bool, locking: bool = False) -> Prepared:
    """Find, resolve, render and check; no effect. Without secrets the user-data holds their references.

    A lock that the configuration has outgrown is an InputError, unless this is for `locking` anew.
    """
    environment, plan, root = session.environment, session.plan, session.root
    if session.lock and not locking and (stale := staleness(session.lock, asked_now(session))):
        raise InputError(
            f"{lock_path(plan.environment)} is stale:\n  " + "\n  ".join(stale),
            hint=f"./inv lock --env {plan.environment}",
        )
    inputs = find_inputs(root, environment)
    references = {name: value for name, value in environment.secrets if value}
    known = {f"secrets.{name}": value for name, value in references.items()}
    secrets.resolve_if_there(known, environ=os.environ, root=root)
    values = {
        name: secrets.resolve(value, environ=os.environ, root=root, key=f"secrets.{name}")
        for name, value in references.items()
        if with_secrets
    }
    source = _fork_file(root, "Dockerfile.j2")
    dockerfile = render.render_dockerfile(plan, environment, inputs, source, session.lock, check_lock=not locking)
    if environment.offline and not locking:
        served = _behind_mirrors(session, dockerfile)
        dockerfile = render.render_dockerfile(plan, environment, inputs, source, served)
    template = _fork_file(root, "user-data.j2")
    for_sites = cloudconfig.is_for_sites(template)
    if for_sites:
        shown = user_data = template
    else:
        shown = _user_data(session, template, {name: f"<{reference}>" for name, reference in references.items()})
        user_data = _user_data(session, template, values) if with_secrets else shown
    return Prepared(
        inputs,
        {
            "Dockerfile": dockerfile,
            "docker-bake.json": render.render_bake(plan, environment, dockerfile),
            "grub.cfg": grub.render_menu(environment),
            "user-data": shown,
            "plan.json": report.plan_json(plan),
        },
        user_data,
        values,
        for_sites,
    )


def _behind_mirrors(session: Session, dockerfile: str) -> Lock | None:
    """The lock by the digests that the mirrors serve. Raises InputError for all that would be asked for elsewhere."""
    environment, name = session.environment, session.plan.environment
    pulls = pulled_images(name, environment, session.lock, dockerfile)
    check_offline(name, environment, pulls, dockerfile)
    if not pulls:
        return session.lock
    from edgebuild.narrowing import settle  # costs 0.2 s

    served = settle(pulls, name)
    named = {source: canonical(source.partition("@")[0]) for source in lockable_images(environment).values()}
    digests = {source: served[plain] for source, plain in named.items() if plain in served}
    nothing = Lock(made_for={}, images={}, base="", packages={stage: {} for stage in STAGES})
    lock = session.lock or nothing
    return lock.model_copy(update={"images": {**lock.images, **digests}})


def _fork_file(root: Path, name: str) -> str:
    try:
        return (root / name).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}") from error


def template_names(session: Session, values: Mapping[str, str]) -> dict[str, Any]:
    """What stands for each name in user-data.j2, with these secrets."""
    environment = session.environment
    password = values.get("user_password") or DEFAULT_PASSWORD
    return {
        **environment.model_dump(by_alias=True),
        "environment": session.plan.environment,
        "secrets": {name: values.get(name, "") for name in type(environment.secrets).model_fields},
        "user": {
            "name": environment.user.name,
            "password_hash": cloudconfig.password_hash(
                password, seed=f"{session.plan.environment}/{environment.user.name}"
            ),
        },
    }


def _user_data(session: Session, template: str, values: Mapping[str, str]) -> str:
    """The template with these secrets, checked against what Palette and Kairos document."""
    text = cloudconfig.render_user_data(template, template_names(session, values))
    problems = cloudconfig.check_user_data(text)
    if problems:
        raise InputError.from_problems(problems, hint="edit user-data.j2; `./inv render` shows what becomes of it")
    return text
