"""The installer's boot menu from the release's data. Pure."""

from edgebuild import quoting
from edgebuild.errors import InputError
from edgebuild.model import Environment, MenuEntry
from edgebuild.render import template_environment

INTERACTIVE = "interactive-install"


def kernel_arguments(environment: Environment, entry: MenuEntry, firmware: str) -> str:
    """The kernel command line of one menu entry for `efi` or `bios`, each argument quoted for grub."""
    menu = environment.grub
    own = entry.arguments.replace("{video}", getattr(menu.video, firmware))
    line = menu.line.replace("{console}", getattr(menu.console, firmware)).replace("{entry}", own)
    return " ".join(map(quoting.grub, [*line.split(), *environment.iso.kernel_arguments, *entry.trailing.split()]))


def render_menu(environment: Environment) -> str:
    """grub.cfg as text. Raises InputError when the release has no interactive entry to start by default."""
    entries = environment.grub.entries
    default = 0
    if environment.iso.interactive:
        matching = [number for number, entry in enumerate(entries) if INTERACTIVE in entry.trailing]
        if not matching:
            raise InputError(f"iso.interactive: release {environment.release} has no interactive installer")
        default = matching[0]
    return (
        template_environment()
        .get_template("grub.cfg.j2")
        .render(
            default=default,
            entries=[
                {
                    "title": entry.title,
                    "efi": kernel_arguments(environment, entry, "efi"),
                    "bios": kernel_arguments(environment, entry, "bios"),
                }
                for entry in entries
            ],
        )
    )
