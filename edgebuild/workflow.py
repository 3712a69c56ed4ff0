"""The recipes: each task is one straight line of steps, every step named as it starts."""

import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgebuild import arguments, cloudconfig, grub, registry, render, report, secrets
from edgebuild.bake import BakeRequest, BakeResult, bake
from edgebuild.boot import BootRequest, BootResult, Firmware, Media, boot_iso
from edgebuild.bootstrap import bootstrap_base
from edgebuild.config import load_environment
from edgebuild.doctor import checks
from edgebuild.doctor import report as print_checks
from edgebuild.engine import docker_client, ensure_engine, probe
from edgebuild.errors import BuildError, InputError, ToolError, VerificationError
from edgebuild.host import Consent
from edgebuild.inputs import Inputs, find_inputs
from edgebuild.iso import IsoRequest, assemble
from edgebuild.model import Environment
from edgebuild.plan import Kind, Plan, Target, make_plan
from edgebuild.results import Artifact, Results
from edgebuild.run import run
from edgebuild.view import open_view

DEFAULT_PASSWORD = "kairos"  # noqa: S105 - the guide's, known to everybody


def say(text: str) -> None:
    """One line for the person who waits; standard output is for results."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def ask(question: str) -> bool:
    """A yes-or-no question on the terminal; Enter means yes."""
    return input(f"{question} [Y/n] ").strip().lower() in {"", "y", "yes"}


@dataclass(frozen=True)
class Session:
    """One call of a task: the repository, one environment, and how to talk to the person."""

    root: Path
    environment: Environment
    plan: Plan
    say: Callable[[str], None] = field(default=say)
    ask: Callable[[str], bool] | None = None

    @property
    def consent(self) -> Consent:
        return Consent(self.say, self.ask, os.environ)

    @property
    def results(self) -> Results:
        return Results(self.root / "build" / self.plan.environment)


def open_session(root: Path, name: str, settings: Sequence[str]) -> Session:
    """Load the environment and plan it; nothing is done yet."""
    environment = load_environment(root, name, settings=settings)
    terminal = sys.stdin.isatty() and sys.stderr.isatty()
    return Session(root, environment, make_plan(name, environment), ask=ask if terminal else None)


@dataclass(frozen=True)
class Prepared:
    """Everything a build is made from, checked: the repository's files, rendered texts and secrets' values."""

    inputs: Inputs
    texts: dict[str, str]  # file name below inputs/ to text, without any secret
    user_data: str  # with secrets
    secret_values: dict[str, str]


def prepare(session: Session, *, with_secrets: bool) -> Prepared:
    """Find, resolve, render and check; no effect. Without secrets the user-data holds their references."""
    environment, plan, root = session.environment, session.plan, session.root
    inputs = find_inputs(root, environment)
    references = {name: value for name, value in environment.secrets if value}
    values = {
        name: secrets.resolve(value, environ=os.environ, root=root, key=f"secrets.{name}")
        for name, value in references.items()
        if with_secrets
    }
    dockerfile = render.render_dockerfile(plan, environment, inputs, _fork_file(root, "Dockerfile.j2"))
    shown = _user_data(session, {name: f"<{reference}>" for name, reference in references.items()})
    user_data = _user_data(session, values) if with_secrets else shown
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
    )


def _fork_file(root: Path, name: str) -> str:
    try:
        return (root / name).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}") from error


def _user_data(session: Session, values: dict[str, str]) -> str:
    """user-data.j2 with these secrets, checked against what Palette and Kairos document."""
    environment = session.environment
    password = values.get("user_password") or DEFAULT_PASSWORD
    names = {
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
    text = cloudconfig.render_user_data(_fork_file(session.root, "user-data.j2"), names)
    problems = cloudconfig.check_user_data(text)
    if problems:
        raise InputError.from_problems(problems, hint="edit user-data.j2; `./inv render` shows what becomes of it")
    return text


def build(session: Session, kinds: Sequence[Kind], *, push: bool = False) -> None:
    """Build the targets of these kinds, publish the results in one step, and push when asked."""
    needs_secrets = "iso" in kinds or ("provider-image" in kinds and bool(session.environment.secrets.luet_auth))
    prepared = prepare(session, with_secrets=needs_secrets)
    targets = [target for target in session.plan.targets if target.kind in kinds]
    started = time.monotonic()
    with session.results.lock(session.say):
        ensure_engine(session.root, session.consent)
        _check_space(session)
        _bootstrap(session)
        with session.results.staging() as staging:
            _write_texts(prepared.texts, staging / "inputs")
            artifacts = _build_images(session, prepared, staging, [each for each in targets if each.kind != "iso"])
            if "iso" in kinds:
                artifacts.append(_build_iso(session, prepared, staging))
            if "provider-image" in kinds:
                profile_text = render.render_profile(session.environment)
                (staging / "cluster-profile.yaml").write_text(profile_text, encoding="utf-8")
            drop = ("*.iso", "*.iso.sha256") if "iso" in kinds else ()
            session.results.publish(staging, session.plan.names, artifacts, drop=drop)
    if push:
        push_images(session)
    _report(session, kinds, artifacts, time.monotonic() - started)


def _check_space(session: Session) -> None:
    """Refuse before the first step what the disk cannot hold."""
    docker_root = Path(run(["docker", "info", "--format", "{{.DockerRootDir}}"]).stdout.strip())
    needed = session.plan.estimated_bytes
    for folder in (docker_root, session.results.folder):
        if folder.exists() and (free := shutil.disk_usage(folder).free) < needed:
            raise BuildError(
                f"{folder}: {report.size(free)} are free, and this build may need {report.size(needed)}",
                hint="docker system df; docker builder prune; ./inv clean --env NAME",
            )


def _bootstrap(session: Session) -> None:
    os_ = session.environment.os
    if os_.bootstrap:
        bootstrap_base(
            session.root / render.bootstrap_folder(session.environment),
            suite=os_.bootstrap,
            arch=os_.arch,
            epoch=session.environment.iso.epoch,
            consent=session.consent,
        )


def _write_texts(texts: Mapping[str, str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def _build_images(session: Session, prepared: Prepared, staging: Path, targets: Sequence[Target]) -> list[Artifact]:
    """One BuildKit call for all of them."""
    names = tuple(target.name for target in targets)
    result = _bake(session, prepared, staging, names)
    sizes = _image_sizes([target.tags[0] for target in targets])
    return [
        Artifact(
            name=target.name,
            kind=target.kind,
            reference=target.tags[0],
            digest=result.digests.get(target.name, ""),
            size_bytes=sizes[target.tags[0]],
            seconds=round(result.seconds.get(target.name, 0.0), 2),
        )
        for target in targets
    ]


def _bake(session: Session, prepared: Prepared, staging: Path, names: tuple[str, ...]) -> BakeResult:
    log = session.results.logs / f"build-{time.strftime('%Y%m%d-%H%M%S')}.log"
    session.say(
        f"building {', '.join(names) if len(names) < 8 else f'{len(names)} images'}; log: {_shown(session, log)}"
    )
    environment = {}
    if value := prepared.secret_values.get("luet_auth"):
        environment["EDGEBUILD_SECRET_LUET_AUTH"] = value
    with open_view(names) as view:
        return bake(
            BakeRequest(
                file=staging / "inputs/docker-bake.json",
                targets=names,
                root=session.root,
                log=log,
                metadata=staging / ".metadata.json",
                builder=session.environment.builder,
                env=environment,
                redact=lambda text: secrets.redact(text, prepared.secret_values.values()),
            ),
            view,
        )


def _image_sizes(tags: Sequence[str]) -> dict[str, int]:
    output = run(["docker", "image", "inspect", "--format", "{{.Size}}", *tags]).stdout
    return dict(zip(tags, map(int, output.split()), strict=True))


def _build_iso(session: Session, prepared: Prepared, staging: Path) -> Artifact:
    """The ISO from the boot tree and this site's files."""
    environment, inputs, root = session.environment, prepared.inputs, session.root
    target = session.plan.iso
    path = staging / f"{environment.iso.name}.iso"
    session.say(f"putting together {path.name}")
    with tempfile.TemporaryDirectory(prefix="edgebuild-") as folder:
        user_data = Path(folder) / "user-data"
        user_data.touch(mode=0o600)
        user_data.write_text(prepared.user_data, encoding="utf-8")
        result = assemble(
            IsoRequest(
                image=session.plan.boot_tree.tags[0],
                arch=environment.os.arch,
                grub_cfg=staging / "inputs/grub.cfg",
                user_data=user_data,
                content=tuple(root / each for each in inputs.content),
                cluster_definition=root / inputs.cluster_definition if inputs.cluster_definition else None,
                overlay=root / "overlay/files-iso" if inputs.overlay_iso else None,
                epoch=environment.iso.epoch,
            ),
            path,
        )
    return Artifact(
        name=target.name,
        kind=target.kind,
        path=target.path,
        digest=f"sha256:{result.sha256}",
        size_bytes=result.size_bytes,
        seconds=round(result.seconds, 2),
    )


def _report(session: Session, kinds: Sequence[Kind], artifacts: Sequence[Artifact], seconds: float) -> None:
    """What was made, on standard output."""
    rows = [("artifact", "size", "where")]
    rows += [(each.name, report.size(each.size_bytes), each.path or each.reference or "") for each in artifacts]
    sys.stdout.write("\n" + report.table(rows))
    folder = f"build/{session.plan.environment}"
    if "iso" in kinds:
        sys.stdout.write(f"\nchecksum:  {session.plan.iso.path}.sha256\n")
    if session.environment.kubernetes.payload == "none" and "provider-image" in kinds:
        sys.stdout.write(f"note:      {report.NO_PAYLOAD}\n")
    sys.stdout.write(f"artifacts: {folder}/artifacts.json\n")
    if "provider-image" in kinds:
        sys.stdout.write(f"profile:   {folder}/cluster-profile.yaml\n\n{render.render_profile(session.environment)}")
    session.say(f"done in {seconds:.1f} s")


def _shown(session: Session, path: Path) -> str:
    return str(path.relative_to(session.root))


def render_inputs(session: Session) -> None:
    """Write what would be built to build/<environment>/inputs/."""
    prepared = prepare(session, with_secrets=False)
    with session.results.lock(session.say), session.results.staging() as staging:
        _write_texts(prepared.texts, staging / "inputs")
        session.results.publish(staging, session.plan.names)
    for name in prepared.texts:
        sys.stdout.write(f"build/{session.plan.environment}/inputs/{name}\n")


def profile(session: Session) -> None:
    """Print the cluster profile and write it."""
    text = render.render_profile(session.environment)
    with session.results.lock(session.say), session.results.staging() as staging:
        (staging / "cluster-profile.yaml").write_text(text, encoding="utf-8")
        session.results.publish(staging, session.plan.names)
    sys.stdout.write(text)
    session.say(f"written to build/{session.plan.environment}/cluster-profile.yaml")


def checksum(session: Session) -> None:
    """Read the ISO and compare it with its checksum file."""
    iso = session.results.current / f"{session.environment.iso.name}.iso"
    shown = session.plan.iso.path
    if not iso.exists():
        raise InputError(f"{shown} does not exist", hint=f"./inv iso --env {session.plan.environment}")
    with iso.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    written = iso.with_name(iso.name + ".sha256").read_text(encoding="ascii").split()[0]
    if digest != written:
        raise VerificationError(
            f"{shown} is not what was built: its SHA-256 is {digest}, and was {written}",
            hint=f"./inv iso --env {session.plan.environment}",
        )
    sys.stdout.write(f"{digest}  {shown}\n")


def push_images(session: Session) -> None:
    """Push every provider image of the plan and note the registry's digests."""
    references = [target.tags[0] for target in session.plan.of_kind("provider-image")]
    ensure_engine(session.root, session.consent)
    session.say(f"pushing {len(references)} images to {session.environment.image.registry}")
    pushed = registry.push(docker_client(), references, jobs=session.environment.push.jobs, say=session.say)
    targets = {target.tags[0]: target for target in session.plan.of_kind("provider-image")}
    artifacts = [
        Artifact(
            name=targets[each.reference].name,
            kind="provider-image",
            reference=each.reference,
            digest=each.digest,
            size_bytes=each.size_bytes,
            seconds=round(each.seconds, 2),
        )
        for each in pushed
    ]
    with session.results.lock(session.say), session.results.staging() as staging:
        session.results.publish(staging, session.plan.names, artifacts)
    for each in pushed:
        sys.stdout.write(f"{each.reference}@{each.digest}\n")
    if note := registry.lifetime(references[0]):
        session.say(f"note: {note}")


def images(session: Session) -> None:
    """List the environment's images in the engine."""
    ensure_engine(session.root, session.consent)
    tags = [tag for target in session.plan.targets for tag in target.tags if target.kind != "boot-tree"]
    found = registry.local_images(docker_client(), tags)
    if not found:
        raise InputError(
            "the engine has no image of this environment", hint="./inv build-all-images with the same --env"
        )
    rows = [("image", "id", "age", "size", "shared")]
    rows += [
        (
            each.reference,
            each.id,
            report.age(each.age_seconds),
            report.size(each.size_bytes),
            report.size(each.shared_bytes),
        )
        for each in found
    ]
    sys.stdout.write(report.table(rows))


def boot(session: Session, firmware: str, media: str) -> None:
    """Boot the ISO in the asked ways, two at a time, and log in."""
    ways = [
        (one_firmware, one_media)
        for one_firmware in _choices(firmware, ("bios", "uefi"), "--firmware")
        for one_media in _choices(media, ("cd", "usb"), "--media")
    ]
    environment = session.environment
    iso = (session.results.current / f"{environment.iso.name}.iso").resolve()
    if not iso.exists():
        raise InputError(
            f"{session.plan.iso.path} does not exist", hint=f"./inv iso --env {session.plan.environment}"
        )
    prepared = prepare(session, with_secrets=bool(environment.secrets.user_password))
    password = prepared.secret_values.get("user_password") or DEFAULT_PASSWORD
    with session.results.lock(session.say):
        ensure_engine(session.root, session.consent)
        _bootstrap(session)
        with session.results.staging() as staging:
            _write_texts(prepared.texts, staging / "inputs")
            _bake(session, prepared, staging, (render.BOOT_TOOLS,))
        folder = session.results.folder / "boot"
        folder.mkdir(exist_ok=True)

        def one(way: tuple[Firmware, Media]) -> BootResult:
            name = way[0] if way[1] == "cd" else f"{way[0]}-{way[1]}"
            session.say(f"booting by {way[0]} from {way[1]}")
            result = boot_iso(
                BootRequest(
                    iso=iso,
                    arch=environment.os.arch,
                    firmware=way[0],
                    media=way[1],
                    image=f"edgebuild/{render.BOOT_TOOLS}:{session.plan.environment}",
                    log=folder / f"{name}.log",
                    screenshot=folder / f"{name}.png",
                    user=environment.user.name,
                    password=password,
                ),
                say=session.say,
            )
            sys.stdout.write(
                f"{way[0]}, {way[1]}: {environment.user.name} logged in after {result.seconds:.0f} s "
                f"({result.accelerator}); {_shown(session, folder)}/{name}.log and .png\n"
            )
            return result

        # Emulation keeps one core busy for each guest.
        with ThreadPoolExecutor(max_workers=min(2, len(ways))) as pool:
            list(pool.map(one, ways))


def _choices(value: str, known: tuple[Any, ...], flag: str) -> tuple[Any, ...]:
    if value == "both":
        return known
    if value in known:
        return (value,)
    raise InputError(f"{flag} {value}: there are {', '.join(known)} and both")


def doctor(session: Session) -> None:
    """Print the checks of this machine. Raises ToolError when one is an error."""
    environment = session.environment
    found = checks(
        session.root,
        arch=environment.os.arch,
        registry_host=environment.image.registry.split("/")[0],
        needed_bytes=session.plan.estimated_bytes,
        proxy_configured=bool(environment.proxy.http or environment.proxy.https),
        environ=os.environ,
        image=session.plan.boot_tree.tags[0],
    )
    if errors := print_checks(found, lambda line: print(line, flush=True)):  # noqa: T201
        raise ToolError(f"{errors} of these checks must be ok before a build")


def clean(session: Session) -> None:
    """Remove the environment's results, and its images from the engine."""
    folder = session.results.folder
    with session.results.lock(session.say):
        engine, problem = probe()
        if engine:
            tags = [tag for target in session.plan.targets for tag in target.tags]
            tags.append(f"edgebuild/{render.BOOT_TOOLS}:{session.plan.environment}")
            there = [tag for tag in tags if run(["docker", "image", "inspect", tag], check=False).returncode == 0]
            if there:
                run(["docker", "image", "rm", *there])
            for tag in there:
                sys.stdout.write(f"removed {tag}\n")
        else:
            session.say(f"images are left: {problem}")
        shutil.rmtree(folder)
    sys.stdout.write(f"removed {_shown(session, folder)}\n")


def import_arguments(root: Path, file: Path, name: str) -> None:
    """Print a CanvOS .arg file as an environment, or write it to config/<name>.yaml."""
    try:
        text = arguments.import_arg(file.read_text(encoding="utf-8"), source=str(file))
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error
    if not name:
        sys.stdout.write(text)
        return
    target = root / "config" / f"{name}.yaml"
    if target.exists():
        raise InputError(f"config/{name}.yaml exists already", hint="choose another --name")
    target.write_text(text, encoding="utf-8")
    load_environment(root, name)
    sys.stdout.write(f"config/{name}.yaml\n")
