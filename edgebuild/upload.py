"""Blobs into a registry: mounted from another repository, or sent as they are read, and continued after a cut."""

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlencode, urljoin

from edgebuild.errors import RegistryError
from edgebuild.oci import Registry
from edgebuild.transport import BadMoment, NotThere

# Gives the blob's bytes from an offset on.
Read = Callable[[int], Iterator[bytes]]
OCTETS = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True)
class _Stream:
    """A body that is sent as it is read, of `size` bytes. It may be sent again: `pieces` begins anew each time."""

    pieces: Callable[[], Iterator[bytes]]
    size: int

    def __iter__(self) -> Iterator[bytes]:
        return self.pieces()

    def __len__(self) -> int:
        return self.size


@dataclass(frozen=True)
class Sent:
    """How the registry came to have a blob, and how many bytes of it went out for that."""

    how: Literal["there", "mounted", "sent"]
    bytes: int = 0


def send_blob(
    registry: Registry, repository: str, digest: str, size: int, read: Read, *, mount_from: Sequence[str] = ()
) -> Sent:
    """Give the repository a blob of `size` bytes: not at all when it has it, mounted from one of the repositories
    `mount_from` of the same registry where that one has it, else sent as it is read, with flat memory.

    A cut upload is continued where the registry has kept it. The registry compares the bytes with the digest.
    Raises RegistryError, and whatever `read` raises.
    """
    upload = _Upload(registry, repository, digest, size, read)
    number, reached = 1, 0
    while True:
        try:
            return upload.go_on(mount_from)
        except BadMoment as moment:
            if upload.sent > reached:  # it goes on, however often it is cut
                number, reached = 1, upload.sent
            registry.patience.pause(moment, number)
            number += 1


def take_blob(registry: Registry, repository: str, digest: str, *, mount_from: Sequence[str] = ()) -> bool:
    """Whether the repository has the blob, now if need be from another one; nothing is sent. Raises RegistryError."""
    upload = _Upload(registry, repository, digest, 0, lambda _: iter(()))
    return registry.patience.again(lambda: upload.is_there() or upload.is_mounted(mount_from))


@dataclass
class _Upload:
    """One blob on its way. `place` is where the registry takes it, once it has said so."""

    registry: Registry
    repository: str
    digest: str
    size: int
    read: Read
    place: str = ""
    sent: int = 0

    def go_on(self, mount_from: Sequence[str]) -> Sent:
        offset = self._kept() if self.place else 0
        if not self.place:
            if self.is_there():
                return Sent("sent" if self.sent else "there", self.sent)
            if self.is_mounted(mount_from):
                return Sent("mounted")
        if not self.place:
            with self._ask("POST", f"{self.repository}/blobs/uploads/", expected=(202,)) as begun:
                self._lead(begun)
        if offset < self.size:
            self._send(offset)
        target = f"{self.place}{'&' if '?' in self.place else '?'}{urlencode({'digest': self.digest})}"
        place, self.place = self.place, ""  # whatever the answer is, this upload is over
        try:
            self._ask("PUT", target, expected=(201,), headers=OCTETS, body=b"").close()
        except BadMoment:
            self.place = place
            raise
        return Sent("sent", self.sent)

    @property
    def _ask(self) -> Callable[..., Any]:
        return functools.partial(self.registry.http.send, repository=self.repository, actions="pull,push")

    def _lead(self, response: Any) -> None:
        self.place = urljoin(self.registry.http.base, response.headers.get("Location", "") or self.place)

    def is_there(self) -> bool:
        with self._ask("HEAD", f"{self.repository}/blobs/{self.digest}", expected=(200, 404)) as found:
            return bool(found.status_code == 200)

    def is_mounted(self, sources: Sequence[str]) -> bool:
        """Whether one of these repositories gave the blob; a registry that does not begins an upload instead."""
        for source in sources:
            path = f"{self.repository}/blobs/uploads/?{urlencode({'mount': self.digest, 'from': source})}"
            try:
                with self._ask("POST", path, expected=(201, 202)) as answer:
                    if answer.status_code == 201:
                        return True
                    self._lead(answer)
                    return False
            except BadMoment:
                raise
            except RegistryError:  # not allowed to read there: it is sent
                continue
        return False

    def _kept(self) -> int:
        """How many bytes the registry has of an upload that was cut; with none it begins anew."""
        try:
            with self._ask("GET", self.place, expected=(204,)) as status:
                match = re.fullmatch(r"(?:bytes=)?0-(\d+)", status.headers.get("Range", ""))
                # `0-0` is said of one byte and of none.
                if match and 0 < int(match[1]) < self.size:
                    self._lead(status)
                    return int(match[1]) + 1
        except NotThere:
            pass
        self.place = ""
        return 0

    def _send(self, offset: int) -> None:
        def counted() -> Iterator[bytes]:
            for piece in self.read(offset):
                self.sent += len(piece)
                yield piece

        headers = {**OCTETS, **({"Content-Range": f"{offset}-{self.size - 1}"} if offset else {})}
        with self._ask(
            "PATCH", self.place, expected=(202,), headers=headers, body=_Stream(counted, self.size - offset)
        ) as taken:
            self._lead(taken)
