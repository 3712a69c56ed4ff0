"""Checks on request: of the ISO by booting it, and of this machine."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from edgebuild import render
from edgebuild.boot import BootRequest, BootResult, Firmware, Media, boot_iso
from edgebuild.doctor import checks
from edgebuild.doctor import report as print_checks
from edgebuild.errors import InputError, ToolError
from edgebuild.session import DEFAULT_PASSWORD, Session, prepare
from edgebuild.workflow import build_boot_tools


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
