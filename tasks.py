"""The tasks of edgebuild: parse, call the workflow, report. What CanvOS calls `+X` is `./inv X` here."""

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import Task as InvokeTask
from invoke.tasks import task as invoke_task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgebuild.plan import Kind
    from edgebuild.session import Session

ROOT = Path(__file__).parent


class Task(InvokeTask):  # type: ignore[type-arg]
    """A task whose errors end in one clear message and the exit code of their kind."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from edgebuild.errors import EdgebuildError
        from edgebuild.secrets import guarded

        # Left in place: the message of an error is printed after this.
        sys.stdout, sys.stderr = guarded(sys.stdout), guarded(sys.stderr)
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as `inv` starts us
            signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
        try:
            return super().__call__(*args, **kwargs)
        except EdgebuildError as error:
            raise Exit(f"error: {error}", error.exit_code) from error
        except KeyboardInterrupt as error:
            raise Exit("interrupted; earlier results are as they were", 130) from error
        except BrokenPipeError as error:
            sys.stdout = None
            raise Exit(code=1) from error
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise Exit(f"error: {where}{error.strerror or error}", 1) from error


ENV = {
    "env": "the environment: a file of config/, without .yaml (default: $EDGEBUILD_ENV, else basic)",
    "set": "key=value, over everything else; repeatable",
}
ENVS = {**ENV, "env": f"{ENV['env']}; repeatable, or all"}
BUILD = {
    **ENVS,
    "again": "also build what is unchanged",
    "fail-fast": "stop at the first target that fails",
    "jobs": "how many targets are built at once (default: limits.jobs)",
    "shard": "only a part of all targets, such as 1/3: the same on every machine",
    "offline": "ask nobody but the mirrors, and prove it",
}
ONE_KIND = {**ENVS, "again": BUILD["again"], "offline": BUILD["offline"]}


def task(**options: Any) -> Any:
    """Invoke's decorator with this project's conventions: no guessed short flags, clear errors."""
    help_ = options.setdefault("help", ENV)
    iterable = [name for name in ("set", "env") if name in help_ and (name == "set" or "repeatable" in help_[name])]
    return invoke_task(klass=Task, auto_shortflags=False, iterable=iterable, **options)


def session(env: str, settings: list[str] | None) -> "Session":
    return sessions([env] if env else [], settings)[0]


def sessions(envs: list[str] | None, settings: list[str] | None) -> "list[Session]":
    from edgebuild.session import open_sessions

    return open_sessions(ROOT, envs or [os.environ.get("EDGEBUILD_ENV", "") or "basic"], settings or [])


def _build(
    envs: list[str] | None,
    settings: list[str] | None,
    kinds: "Sequence[Kind]",
    *,
    push: bool = False,
    shard: str = "",
    **options: Any,
) -> None:
    """Build these kinds of targets, and push the provider images of them."""
    from edgebuild.building import build
    from edgebuild.outcome import Options

    opened = sessions(envs, settings)
    build(opened, kinds, Options(shard=shard, **options))
    if push:
        from edgebuild import delivery

        delivery.push(opened, shard=shard)


def _settings(settings: list[str] | None, offline: bool) -> list[str]:
    return [*(settings or []), *(["offline=true"] if offline else [])]


@task(help={**BUILD, "push": "push the provider images afterwards"})
def build_all_images(
    _: Context,
    env: list[str] | None = None,
    set: list[str] | None = None,
    push: bool = False,
    again: bool = False,
    fail_fast: bool = False,
    jobs: int = 0,
    shard: str = "",
    offline: bool = False,
) -> None:
    """Build provider images, installer image, ISO with checksum, and the cluster profile."""
    from edgebuild.plan import ALL_KINDS

    _build(
        env,
        _settings(set, offline),
        ALL_KINDS,
        push=push,
        again=again,
        fail_fast=fail_fast,
        jobs=jobs,
        shard=shard,
    )


@task(help={**BUILD, "push": "push the images afterwards"})
def build_provider_images(
    _: Context,
    env: list[str] | None = None,
    set: list[str] | None = None,
    push: bool = False,
    again: bool = False,
    fail_fast: bool = False,
    jobs: int = 0,
    shard: str = "",
    offline: bool = False,
) -> None:
    """Build the provider images of all Kubernetes versions, and the cluster profile."""
    _build(
        env,
        _settings(set, offline),
        ["provider-image"],
        push=push,
        again=again,
        fail_fast=fail_fast,
        jobs=jobs,
        shard=shard,
    )


@task(help={**ENV, "k8s-version": "the Kubernetes version, such as 1.33.6", "offline": BUILD["offline"]})
def provider_image(
    _: Context, k8s_version: str = "", env: str = "", set: list[str] | None = None, offline: bool = False
) -> None:
    """Build the provider image of one Kubernetes version."""
    from edgebuild import building
    from edgebuild.errors import InputError
    from edgebuild.outcome import Options

    if not k8s_version:
        raise InputError("provider-image needs --k8s-version", hint="./inv provider-image --k8s-version 1.33.6")
    settings = _settings(set, offline)
    opened = session(env, settings)
    if k8s_version not in opened.environment.versions:
        opened = session(env, [*settings, f"kubernetes.versions={k8s_version}"])
    target = next(each for each in opened.plan.targets if each.kubernetes_version == k8s_version)
    building.build([opened], ["provider-image"], Options(only=target.name))


@task(help=ONE_KIND)
def base_image(
    _: Context,
    env: list[str] | None = None,
    set: list[str] | None = None,
    again: bool = False,
    offline: bool = False,
) -> None:
    """Build what provider images and installer share."""
    _build(env, _settings(set, offline), ["base-image"], again=again)


@task(help=ONE_KIND)
def iso_image(
    _: Context,
    env: list[str] | None = None,
    set: list[str] | None = None,
    again: bool = False,
    offline: bool = False,
) -> None:
    """Build the installer image: the live system of the ISO."""
    _build(env, _settings(set, offline), ["installer-image"], again=again)


@task(help=ONE_KIND)
def iso(
    _: Context,
    env: list[str] | None = None,
    set: list[str] | None = None,
    again: bool = False,
    offline: bool = False,
) -> None:
    """Build the installer ISO and its checksum."""
    from edgebuild.plan import ISO_KINDS

    _build(env, _settings(set, offline), ISO_KINDS, again=again)


@task(
    help={
        **ENV,
        "sites": "a CSV file with a row for each site, or a pattern of YAML files, in quotes: 'sites/*.yaml'",
        "kind": "iso, or cidata: a small ISO with the user-data alone (default: iso)",
        "user-data": "the template of the user-data; a site's values are site.NAME (default: user-data.j2)",
        "jobs": "ISOs that are written at the same time (default: 2)",
    }
)
def site_isos(
    _: Context,
    sites: str = "",
    kind: str = "iso",
    user_data: str = "",
    jobs: int = 0,
    env: str = "",
    set: list[str] | None = None,
) -> None:
    """Build an ISO for each site of a fleet, with its own user-data, and an index of them."""
    from edgebuild import fleet
    from edgebuild.siteplan import Options

    fleet.make(session(env, set), Options(sites, kind, user_data, jobs))


@task()
def checksum(_: Context, env: str = "", set: list[str] | None = None) -> None:
    """Read the ISO again and compare it with its checksum."""
    from edgebuild import workflow

    workflow.checksum(session(env, set))


@task(
    help={
        **ENVS,
        "verified": "move the tags only to images of a set that passed verify and boot",
        "shard": BUILD["shard"],
    }
)
def push(
    _: Context,
    env: list[str] | None = None,
    set: list[str] | None = None,
    verified: bool = False,
    shard: str = "",
) -> None:
    """Push the provider images to the registry."""
    from edgebuild import delivery

    delivery.push(sessions(env, set), verified=verified, shard=shard)


@task()
def profile(_: Context, env: str = "", set: list[str] | None = None) -> None:
    """Print the cluster profile's manifest and write cluster-profile.yaml."""
    from edgebuild import workflow

    workflow.profile(session(env, set))


@task(
    help={
        **ENVS,
        "json": "for programs",
        "why": "all that has changed for this target, such as iso",
        "shard": BUILD["shard"],
    }
)
def plan(
    _: Context,
    env: list[str] | None = None,
    set: list[str] | None = None,
    json: bool = False,
    why: str = "",
    shard: str = "",
) -> None:
    """Show what would be built and why, and what is there already: targets, images, tags, time, space."""
    from edgebuild import planning

    opened = sessions(env, set)
    if why:
        planning.explain(opened, why)
    else:
        planning.show(opened, as_json=json, shard=shard)


@task(help={**ENVS, "shards": "how many jobs at most"})
def ci_matrix(_: Context, env: list[str] | None = None, set: list[str] | None = None, shards: int = 1) -> None:
    """Print the jobs of a CI run as JSON: each builds its shard with --shard."""
    from edgebuild import planning

    planning.matrix(sessions(env, set), shards)


@task(help={**ENV, "update": "look for newer images and packages, without caches"})
def lock(_: Context, env: str = "", set: list[str] | None = None, update: bool = False) -> None:
    """Lock upstream images to digests and packages to versions, in config/<environment>.lock.yaml."""
    from edgebuild import pinning

    pinning.lock(session(env, set), update=update)


@task()
def render(_: Context, env: str = "", set: list[str] | None = None) -> None:
    """Write Dockerfile, bake file, boot menu and user-data to build/<environment>/inputs/."""
    from edgebuild import workflow

    workflow.render_inputs(session(env, set))


@task()
def images(_: Context, env: str = "", set: list[str] | None = None) -> None:
    """List the environment's images in the engine: id, age, size, what they share."""
    from edgebuild import delivery

    delivery.images(session(env, set))


@task(
    help={
        **ENV,
        "firmware": "bios, uefi or both (default: both)",
        "media": "cd, usb or both (default: cd)",
        "again": "also boot what has booted before, unchanged",
    }
)
def boot(
    _: Context,
    env: str = "",
    set: list[str] | None = None,
    firmware: str = "both",
    media: str = "cd",
    again: bool = False,
) -> None:
    """Boot the ISO in QEMU and log in with the user of the user-data."""
    from edgebuild import checking

    checking.boot(session(env, set), firmware, media, again=again)


@task(
    help={
        **ENV,
        "path": "an ISO, or a folder with results, instead of an environment: needs no engine and no network",
        "key": "the public key (PEM) of who signs: also check all signatures",
        "rebuild": "build the ISO again, without cache and in another folder, and compare every byte",
        "registry": "also read every pushed image from the registry (--no-registry: leave it out)",
    },
)
def verify(
    _: Context,
    path: str = "",
    env: str = "",
    set: list[str] | None = None,
    registry: bool = True,
    key: str = "",
    rebuild: bool = False,
) -> None:
    """Check what was built, whole and in every part: files, ISO, images in engine and registry."""
    from edgebuild import checking

    if path:
        checking.verify_path(Path(path), key=Path(key) if key else None)
    else:
        public = Path(key) if key else None
        checking.verify(session(env, set), registry=registry, key=public, again=rebuild)


@task()
def doctor(_: Context, env: str = "", set: list[str] | None = None) -> None:
    """Check what this machine needs to build: one line each, with the remedy."""
    from edgebuild import checking

    checking.doctor(session(env, set))


@task(
    help={
        **ENVS,
        "older-than": "only what is older, such as 7d (m, h, d or w)",
        "keep": "only the oldest, until what is left takes no more, such as 20GB",
        "cache": "also what builds share: the builder's cache, which other projects may use too, and unused bases",
        "dry-run": "only show what would go, and what it frees",
        "yes": "do not ask",
    }
)
def clean(
    _: Context,
    env: list[str] | None = None,
    set: list[str] | None = None,
    older_than: str = "",
    keep: str = "",
    cache: bool = False,
    dry_run: bool = False,
    yes: bool = False,
) -> None:
    """Remove results of environments and their images from the engine: all, or by age and size."""
    from edgebuild import cleaning

    options = cleaning.Options(older_than=older_than, keep=keep, cache=cache, dry_run=dry_run, yes=yes)
    cleaning.clean(sessions(env, set), options)


BLOBS = "how many blobs at a time (default: 4)"
MIRROR = {**ENVS, "from": "the folder of mirror.export"}


@task(name="plan", help={**ENVS, "json": "for programs"})
def mirror_plan(_: Context, env: list[str] | None = None, set: list[str] | None = None, json: bool = False) -> None:
    """List everything that environments pull from elsewhere: images by digest, packages, Python wheels."""
    from edgebuild import mirroring

    mirroring.plan(_online(env, set), as_json=json)


@task(
    name="export",
    help={**ENVS, "to": "the folder", "jobs": BLOBS, "wheels": "also the Python wheels (--no-wheels: without)"},
)
def mirror_export(
    _: Context,
    to: str = "",
    env: list[str] | None = None,
    set: list[str] | None = None,
    wheels: bool = True,
    jobs: int = 0,
) -> None:
    """Put what environments pull into one folder: an OCI image layout, wheels, checksums. Resumable."""
    from edgebuild import mirroring
    from edgebuild.errors import InputError

    if not to:
        raise InputError("mirror.export needs --to FOLDER", hint="./inv mirror.export --to mirror")
    mirroring.export(_online(env, set), Path(to), wheels=wheels, jobs=jobs)


@task(name="import", help={**MIRROR, "jobs": BLOBS, "to": "host[:port][/namespace] of the registry"})
def mirror_import(
    _: Context,
    from_: str = "",
    to: str = "",
    env: list[str] | None = None,
    set: list[str] | None = None,
    jobs: int = 0,
) -> None:
    """Push a mirror's images to a registry; without --from straight from their registries. Resumable."""
    from edgebuild import mirroring

    mirroring.import_(_online(env, set), Path(from_) if from_ else None, to, jobs=jobs)


@task(name="check", help={**MIRROR, "registry": "the registry that was imported into"})
def mirror_check(
    _: Context, from_: str = "", registry: str = "", env: list[str] | None = None, set: list[str] | None = None
) -> None:
    """Read every byte of a mirror, in a folder or a registry, and name what is missing or changed."""
    from edgebuild import mirroring

    mirroring.check(_online(env, set), Path(from_) if from_ else None, registry)


def _online(envs: list[str] | None, settings: list[str] | None) -> "list[Session]":
    """Sessions that may ask: who fills a mirror is not yet behind it."""
    return sessions(envs, [*(settings or []), "offline=false"])


@task(help={})
def test(_: Context) -> None:
    """Run everything: lint, types, the validate gate, unit, golden, integration and boot tests."""
    _nox("lint", "types", "validate", "tests")


def _nox(*sessions: str) -> None:
    import subprocess

    from edgebuild.run import process

    with process([sys.executable, "-m", "nox", "-s", *sessions], cwd=ROOT, stdin=subprocess.DEVNULL) as child:
        child.wait()
    if child.returncode:
        raise Exit(code=child.returncode)


@task(name="show")
def config_show(_: Context, env: str = "", set: list[str] | None = None) -> None:
    """Print the complete configuration of an environment."""
    from edgebuild import report

    sys.stdout.write(report.configuration(session(env, set).environment))


@task(name="import-arg", help={"file": "a .arg file of CanvOS", "name": "write config/NAME.yaml instead of printing"})
def config_import_arg(_: Context, file: str = ".arg", name: str = "") -> None:
    """Turn a CanvOS .arg file into an environment file."""
    from edgebuild import workflow

    workflow.import_arguments(ROOT, Path(file), name)


@task(name="generate", help={})
def config_generate(_: Context) -> None:
    """Write the generated files anew: config/schema.json and docs/arguments.md."""
    from edgebuild import generated

    for path in generated.write(ROOT):
        sys.stdout.write(f"{path}\n")


@task(name="environments", help={})
def config_environments(_: Context) -> None:
    """List the environments of config/."""
    from edgebuild.config import environment_names

    sys.stdout.write("".join(f"{name}\n" for name in environment_names(ROOT)))


@task(name="create")
def builder_create(_: Context, env: str = "", set: list[str] | None = None) -> None:
    """Make docker and buildx know the builders of the environment."""
    from edgebuild import preflight

    preflight.create(session(env, set))


@task(name="check")
def builder_check(_: Context, env: str = "", set: list[str] | None = None) -> None:
    """Check the builders: reachable, new enough, of the right platform; one line each, with the remedy."""
    from edgebuild import preflight

    preflight.check(session(env, set))


@task(name="remove")
def builder_remove(_: Context, env: str = "", set: list[str] | None = None) -> None:
    """Make docker and buildx forget the builders of the environment."""
    from edgebuild import preflight

    preflight.remove(session(env, set))


ns = Collection(
    build_all_images,
    build_provider_images,
    provider_image,
    base_image,
    iso_image,
    iso,
    site_isos,
    checksum,
    push,
    profile,
    plan,
    ci_matrix,
    render,
    lock,
    images,
    boot,
    verify,
    doctor,
    clean,
    test,
)
ns.add_collection(Collection("mirror", mirror_plan, mirror_export, mirror_import, mirror_check), name="mirror")
ns.add_collection(
    Collection("config", config_show, config_import_arg, config_generate, config_environments), name="config"
)
ns.add_collection(Collection("builder", builder_create, builder_check, builder_remove), name="builder")
