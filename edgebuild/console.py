"""What to type on a serial console to log in, decided from what the guest prints. Pure."""

import re
from dataclasses import dataclass, field

LOGIN_TRIES = 20
KEPT = 4000

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|[\x00-\x08\x0e-\x1f]")
TROUBLE = {
    "Kernel panic": "the kernel panicked",
    "grub rescue>": "grub did not find its files",
    "No bootable device": "the firmware found nothing to boot",
    "BdsDxe: No bootable option": "the firmware found nothing to boot",
    "Entering emergency mode": "the initrd gave up; it did not find the root file system",
    'Generating "/run/initramfs/rdsosreport.txt"': "the initrd gave up; it did not find the root file system",
    "You are in emergency mode": "the system came up in emergency mode",
}


@dataclass
class Console:
    """Feed it what arrives; it answers with what to type. `state` ends as `done` or `failed`."""

    user: str
    password: str
    state: str = "booting"
    problem: str = ""
    tries: int = 0
    _text: str = field(default="", repr=False)

    def feed(self, data: bytes) -> str:
        """Text to type now, or nothing. Pieces may be cut anywhere."""
        self._text = ESCAPES.sub("", self._text + data.decode("utf-8", errors="replace"))[-KEPT:]
        for sign, meaning in TROUBLE.items():
            if sign in self._text:
                return self._end("failed", meaning)
        if self.state in {"booting", "password"} and re.search(r"login: ?$", self._text):
            if self.state == "password":  # the prompt came again: the login before it was refused
                return self._refused()
            return self._type("login", self.user)
        if self.state == "login" and re.search(r"Password: ?$", self._text):
            return self._type("password", self.password)
        if self.state == "password" and "Login incorrect" in self._text:
            return self._refused()
        if self.state == "password" and re.search(r"[$#] $", self._text):
            # What is echoed differs from what is printed, so the echo is no success.
            return self._type("shell", "echo edgebuild-$((6*7))-$(id -un)")
        if self.state == "shell" and f"edgebuild-42-{self.user}" in self._text:
            return self._end("done", "")
        return ""

    def _type(self, state: str, text: str) -> str:
        self.state, self._text = state, ""
        return text + "\n"

    def _refused(self) -> str:
        # cloud-init may not have made the user yet.
        self.tries += 1
        if self.tries >= LOGIN_TRIES:
            return self._end("failed", f"the login of {self.user} was refused {self.tries} times")
        self.state, self._text = "booting", ""
        return "\n"

    def _end(self, state: str, problem: str) -> str:
        self.state, self.problem = state, problem
        return ""
