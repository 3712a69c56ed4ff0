"""Hashes of what holds secrets, with a key that stays on this machine: nobody else can try values against them."""

import contextlib
import hashlib
import hmac
import os
import secrets
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

KEY_BYTES = 32


@dataclass(frozen=True)
class Keyed:
    """The key of the repository at `root`, in build/.cache/keyed; made when it is first needed."""

    root: Path

    @property
    def path(self) -> Path:
        return self.root / "build/.cache/keyed"

    def digest(self, data: bytes) -> str:
        """HMAC-SHA256 of `data`, in hex. Raises OSError when the key can be neither read nor made."""
        return hmac.new(self._key, data, hashlib.sha256).hexdigest()

    @cached_property
    def _key(self) -> bytes:
        try:
            found = self.path.read_bytes()
        except FileNotFoundError:
            found = b""
        return found if len(found) == KEY_BYTES else self._made(damaged=bool(found))

    def _made(self, *, damaged: bool) -> bytes:
        """A new key; of two runs that make one at once both take the first. A damaged one is replaced."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.path.parent, prefix=".keyed-") as file:  # mode 0600
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
            if damaged:
                self.path.unlink(missing_ok=True)
            with contextlib.suppress(FileExistsError):  # another run was faster
                self.path.hardlink_to(file.name)
        return self.path.read_bytes()
