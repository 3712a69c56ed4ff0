"""The login on a serial console, whatever way its text is cut."""

import pytest

from edgebuild.console import LOGIN_TRIES, Console

BOOT = b"[    1.0] Linux\r\n\x1b[0;32m  OK  \x1b[0m Reached target login prompts.\r\nDebian 12 edge ttyS0\r\n\r\nedge login: "


def play(console: Console, guest: list[bytes]) -> list[str]:
    """Feed byte by byte; what was typed."""
    answers = (console.feed(bytes([byte])) for part in guest for byte in part)
    return [answer for answer in answers if answer]


def test_login() -> None:
    console = Console("kairos", "secret")
    guest = [BOOT, b"kairos\r\nPassword: ", b"\r\nLinux edge\r\n\x1b[?2004hkairos@edge:~$ "]
    guest += [b"echo edgebuild-$((6*7))-$(id -un)\r\n", b"edgebuild-42-kairos\r\n"]
    assert play(console, guest) == ["kairos\n", "secret\n", "echo edgebuild-$((6*7))-$(id -un)\n"]
    assert console.state == "done"


def test_the_echo_is_no_success() -> None:
    console = Console("kairos", "secret")
    play(console, [BOOT, b"Password: ", b"$ ", b"echo edgebuild-$((6*7))-$(id -un)\r\n"])
    assert console.state == "shell"


def test_the_user_may_come_late() -> None:
    console = Console("kairos", "secret")
    refused = b"\r\nLogin incorrect\r\nedge login: "
    typed = play(console, [BOOT, b"Password: ", refused, b"\r\nedge login: ", b"Password: ", b"$ "])
    assert console.state == "shell"
    assert typed.count("kairos\n") == 2


def test_a_refused_login_ends() -> None:
    console = Console("kairos", "secret")
    for _ in range(LOGIN_TRIES):
        play(console, [b"edge login: ", b"Password: ", b"\r\nLogin incorrect\r\n"])
    assert console.state == "failed"
    assert "refused" in console.problem
    assert "secret" not in console.problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"Kernel panic - not syncing: VFS", "the kernel panicked"),
        (b"Entering emergency mode. Exit the shell", "the initrd gave up"),
        (b"grub rescue> ", "grub did not find its files"),
        (b"No bootable device.", "nothing to boot"),
    ],
)
def test_trouble(text: bytes, expected: str) -> None:
    console = Console("kairos", "secret")
    play(console, [b"...", text])
    assert console.state == "failed"
    assert expected in console.problem
