"""Checks on request: of the ISO by booting it, and of this machine."""

import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgebuild import render, sums
from edgebuild import verify as verification
from edgebuild.boot import BootRequest, BootResult, Firmware, Media, boot_iso
from edgebuild.doctor import checks
from edgebuild.doctor import report as print_checks
from edgebuild.errors import InputError, ToolError
from edgebuild.rebuild import rebuild
from edgebuild.seal import finish_switch
from edgebuild.session import DEFAULT_PASSWORD, Session, prepare
from edgebuild.workflow import build_boot_tools


def boot(session: Session, firmware: str, media: str, *, again: bool = False) -> None:
    """Boot the ISO in the asked ways, two at a time, and log in; not `again` what this very content has passed."""
    asked = [
        (one_firmware, one_media)
        for one_firmware in _choices(firmware, ("bios", "uefi"), "--firmware")
        for one_media in _choices(media, ("cd", "usb"), "--media")
    ]
    iso = (session.results.current / f"{session.environment.iso.name}.iso").resolve()
    if not iso.exists():
        raise InputError(
            f"{session.plan.iso.path} does not exist", hint=f"./inv iso --env {session.plan.environment}"
        )
    with session.results.lock(session.say):
        digest = sums.digest(iso)
        ways = []
        for way in asked:
            noted = None if again else session.results.records.get("boots", boot_key(digest, *way))
            if noted:
                sys.stdout.write(f"{way[0]}, {way[1]}: booted already, on {noted['when']}; --again boots it anyway\n")
            else:
                ways.append(way)
        if ways:
            _boot(session, iso, digest, ways)


def boot_key(digest: str, firmware: str, media: str) -> str:
    """The name of the record that an ISO of this SHA-256 has booted in this way."""
    return f"{digest}-{firmware}-{media}"


def _boot(session: Session, iso: Path, digest: str, ways: Sequence[tuple[Firmware, Media]]) -> None:
    environment = session.environment
    prepared = prepare(session, with_secrets=bool(environment.secrets.user_password))
    password = prepared.secret_values.get("user_password") or DEFAULT_PASSWORD
    build_boot_tools(session, prepared)
    folder = session.results.folder / "boot"
    folder.mkdir(exist_ok=True)
    stop = threading.Event()

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
                stop=stop,
            ),
            say=session.say,
        )
        when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        session.results.records.add("boots", boot_key(digest, *way), when=when, seconds=round(result.seconds))
        sys.stdout.write(
            f"{way[0]}, {way[1]}: {environment.user.name} logged in after {result.seconds:.0f} s "
            f"({result.accelerator}); {folder.relative_to(session.root)}/{name}.log and .png\n"
        )
        return result

    # Emulation keeps one core busy for each guest.
    with ThreadPoolExecutor(max_workers=min(2, len(ways))) as pool:
        try:
            list(pool.map(one, ways))
        except KeyboardInterrupt:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _choices(value: str, known: tuple[Any, ...], flag: str) -> tuple[Any, ...]:
    if value == "both":
        return known
    if value in known:
        return (value,)
    raise InputError(f"{flag} {value}: there are {', '.join(known)} and both")


def verify(session: Session, *, registry: bool, key: Path | None = None, again: bool = False) -> None:
    """Check everything of the environment's last complete set; one line for each part.

    `again`: also build its ISO once more and compare.
    """
    with session.results.lock(session.say):
        finish_switch(session)
        findings = verification.verify_set(session, registry=registry, key=key)
        verification.remember(session, findings)
        if again:
            findings += rebuild(session)
    _print_findings(findings)
    verification.raise_problems(findings, hint=f"./inv build-all-images --env {session.plan.environment}")


def verify_path(path: Path, *, key: Path | None = None) -> None:
    """Check an ISO or a folder with results, without engine and network."""
    findings = verification.verify_path(path, key=key)
    _print_findings(findings)
    verification.raise_problems(findings, hint="take it anew from where it was built")


def _print_findings(findings: Sequence[verification.Finding]) -> None:
    width = max(len(each.part) for each in findings)
    for each in findings:
        sys.stdout.write(f"{'differs' if each.problems else 'ok':<8} {each.part:<{width}}  {each.checked}\n")


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
