"""HTTP to one registry: its address, Docker's logins and certificates, and patience with it."""

import base64
import json
import random
import re
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode, urljoin, urlsplit

import docker
import requests
import urllib3
from requests.adapters import HTTPAdapter

from edgebuild.errors import RegistryError
from edgebuild.references import is_transient, what_helps

T = TypeVar("T")
LOOPBACK = re.compile(r"(127(\.[0-9]{1,3}){3}|localhost|\[::1\])(:[0-9]+)?")
LONGEST_WAIT = 60.0  # seconds; a registry may ask for hours, and a build does not wait that long
ANSWER_BYTES = 8 << 20  # what a manifest or token may have at most
PIECE_BYTES = 1 << 20
SAID_BYTES = 64 << 10  # of an error's body
SLOWEST = 1000  # bytes a second: below it a registry stalls, however busy it looks
CLIENT = "edgebuild"
BROKEN = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
Body = bytes | Mapping[str, str] | Iterable[bytes] | None


@dataclass(frozen=True)
class Patience:
    """How long one waits for a registry. Seconds; `read_seconds` is the longest silence within an answer."""

    connect_seconds: float = 10.0
    read_seconds: float = 60.0
    attempts: int = 4
    stalled_attempts: int = 4  # each takes as long as the longest silence
    wait: Callable[[float], None] = time.sleep

    def again(self, action: Callable[[], T]) -> T:
        """Do it; try again after a bad moment. Raises RegistryError."""
        number = 1
        while True:
            try:
                return action()
            except BadMoment as moment:
                self.pause(moment, number)
            number += 1

    def pause(self, moment: "BadMoment", number: int) -> None:
        """Wait before the attempt after `number`; raise RegistryError when that was the last one."""
        if number >= (self.stalled_attempts if moment.stalled else self.attempts):
            times = f"; tried {number} times" if number > 1 else ""
            raise RegistryError(moment.message + times, hint=moment.hint) from moment
        spread = 2.0 ** (number - 1) * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, no secret
        self.wait(min(max(spread, moment.seconds), LONGEST_WAIT))


class BadMoment(RegistryError):
    """The registry, or the way to it, is out of order just now. `seconds` is the pause it asks for."""

    def __init__(self, message: str, *, seconds: float = 0.0, stalled: bool = False) -> None:
        super().__init__(message, hint="try again; when it lasts, ask whoever runs the registry")
        self.seconds, self.stalled = seconds, stalled


class NotThere(RegistryError):
    """The registry has nothing of this name."""


def plain(host: str) -> bool:
    """Whether the registry is asked without TLS: on loopback, as Docker does it."""
    return bool(LOOPBACK.fullmatch(host))


def endpoint(host: str) -> str:
    """The address below which the API is."""
    if host in {"docker.io", "index.docker.io"}:
        return "https://registry-1.docker.io/v2/"
    return f"{'http' if plain(host) else 'https'}://{host}/v2/"


class _Certificates(HTTPAdapter):
    """Trusts the system's authorities, and those that Docker is given for this registry."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options, ssl_context=self.context)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, **options, ssl_context=self.context)


def _context(folder: Path) -> ssl.SSLContext:
    """TLS as Docker has it for one registry: also its *.crt are trusted, and *.cert with *.key say who we are."""
    context = ssl.create_default_context()
    try:
        for file in sorted(folder.glob("*.crt")):
            context.load_verify_locations(file)
        for file in sorted(folder.glob("*.cert")):
            context.load_cert_chain(file, file.with_suffix(".key"))
    except OSError as error:  # ssl.SSLError is one
        raise RegistryError(f"{file}: cannot be used as a certificate: {error.strerror or error}") from error
    return context


class Transport:
    """Requests to the registry `host` (host[:port]), with what Docker's configuration knows of it."""

    def __init__(self, host: str, patience: Patience, certificates: Path, insecure: Callable[[str], bool]) -> None:
        self.host, self.patience, self.base = host, patience, endpoint(host)
        self._may_loosen, self._insecure = not plain(host), insecure
        self._verified = True
        self._authorization: dict[str, str] = {}  # scope to header
        self._session = requests.Session()
        self._session.headers.update({"Accept-Encoding": "identity", "User-Agent": CLIENT})
        self._session.trust_env = not plain(host)  # no proxy on the way to loopback
        if not plain(host):
            self._session.mount("https://", _Certificates(_context(certificates / host)))

    def send(
        self,
        method: str,
        path: str,
        *,
        repository: str,
        expected: Iterable[int] = (200,),
        actions: str = "pull",
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
    ) -> requests.Response:
        """One request below /v2/; the answer's body is still to be read, and closed.

        Raises BadMoment when another attempt can help, NotThere and RegistryError when none does.
        """
        url, scope = urljoin(self.base, path), f"repository:{repository}:{actions}"
        step = url.partition("?")[0].partition(f"/{repository}/")[2]
        what = f"{self.host}/{repository}: {method} {step}"
        ours = urlsplit(url)[:2] == urlsplit(self.base)[:2]  # an upload may lead elsewhere; the login does not
        known = self._authorization.get(scope) if ours else None
        given = {**(headers or {}), **({"Authorization": known} if known else {})}
        try:
            response = self._ask(what, method, url, given, body)
        except RegistryError:
            if not self._loosen():
                raise
            url = urljoin(self.base, path)
            response = self._ask(what, method, url, given, body)
        if response.status_code == 401 and ours:
            try:
                authorization = self._log_in(what, response.headers.get("WWW-Authenticate", ""), scope)
            except BaseException:
                response.close()
                raise
            if authorization:
                response.close()
                self._authorization[scope] = authorization
                response = self._ask(what, method, url, {**given, "Authorization": authorization}, body)
        if response.status_code not in expected:
            with response:
                self._refuse(what, repository, response)
        return response

    def answers(self) -> bool:
        """Whether anything answers there, whatever it says."""
        try:
            self._ask(self.host, "GET", self.base, {}, None).close()
        except RegistryError:
            return self._loosen()
        return True

    def _loosen(self) -> bool:
        """After TLS has failed: do without as far as the engine is told to for this registry. Whether that is so."""
        if not self._may_loosen or not self._insecure(self.host):
            return False
        self._may_loosen, self._verified = False, False
        self._session.mount("https://", HTTPAdapter())
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # the engine's configuration wants it
        try:
            self._ask(self.host, "GET", self.base, {}, None).close()
        except RegistryError:
            self.base = self.base.replace("https://", "http://", 1)
        return True

    def read(self, response: requests.Response) -> bytes:
        """The whole body of a short answer. Raises BadMoment and RegistryError."""
        body = bytearray()
        with response:
            for piece in self.pieces(response):
                body += piece
                if len(body) > ANSWER_BYTES:
                    raise RegistryError(f"{self.host}: the answer is larger than {ANSWER_BYTES >> 20} MB")
        return bytes(body)

    def pieces(self, response: requests.Response) -> Iterable[bytes]:
        """The body as it comes in, in pieces of at most a megabyte. Raises BadMoment."""
        started, received = time.monotonic(), 0
        try:
            while piece := response.raw.read1(PIECE_BYTES, decode_content=False):
                received += len(piece)
                seconds = time.monotonic() - started
                if seconds > self.patience.read_seconds and received < seconds * SLOWEST:
                    raise BadMoment(f"{self.host}: only {received} bytes in {seconds:.0f} s")
                yield piece
        except urllib3.exceptions.HTTPError as error:
            raise BadMoment(f"{self.host}: the answer broke off: {_cause(error)}") from error

    def _ask(self, what: str, method: str, url: str, headers: Mapping[str, str], body: Body) -> requests.Response:
        try:
            return self._session.request(
                method,
                url,
                headers=headers,
                data=body,
                stream=True,
                timeout=(self.patience.connect_seconds, self.patience.read_seconds),
                verify=self._verified,
                auth=lambda request: request,  # else requests would take a login from ~/.netrc
            )
        except BROKEN as error:
            cause = _cause(error)
            if advice := what_helps(f"{self.host}/x", cause):
                raise RegistryError(f"{what}: {cause}", hint=advice) from error
            if stalled := "timed out" in cause and not isinstance(error, requests.ConnectTimeout):
                cause = f"the registry stalls: nothing came for {self.patience.read_seconds:g} s, timed out"
            raise BadMoment(f"{what}: {cause}", stalled=stalled) from error
        except requests.RequestException as error:
            raise RegistryError(f"{what}: {_cause(error)}") from error

    def _refuse(self, what: str, repository: str, response: requests.Response) -> None:
        """Raise what this answer means."""
        status = f"{response.status_code} {response.reason or ''}".strip()
        try:
            errors = json.loads(response.raw.read(SAID_BYTES, decode_content=True)).get("errors") or []
            said = "; ".join(str(each.get("message") or each.get("code")) for each in errors)
        except (ValueError, AttributeError, TypeError, urllib3.exceptions.HTTPError):
            said = ""
        message = f"{what}: {status}" + (f": {said[:300]}" if said else "")
        if is_transient(status):
            seconds = response.headers.get("Retry-After", "")
            raise BadMoment(message, seconds=float(seconds) if seconds.isdigit() else 0.0)
        kind = NotThere if response.status_code == 404 else RegistryError
        raise kind(message, hint=what_helps(f"{self.host}/{repository}", f"{status}: {said}"))

    def _log_in(self, what: str, challenge: str, scope: str) -> str:
        """The Authorization header that this challenge asks for; empty when there is no login."""
        asked = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        user, password, identity = self._login()
        if not re.search(r"(?i)\bbearer\b", challenge):
            return _basic(user, password) if user else ""
        realm = asked.get("realm", "")
        if urlsplit(realm).scheme != "https" and self.base.startswith("https:"):
            raise RegistryError(f"{what}: wants the login sent to {realm or 'nowhere'}, which is not encrypted")
        form = {"service": asked.get("service", ""), "scope": asked.get("scope") or scope}
        if identity:
            form |= {"grant_type": "refresh_token", "client_id": CLIENT, "refresh_token": identity}
            response = self._ask(what, "POST", realm, {}, form)
        else:
            url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(form)}"
            response = self._ask(what, "GET", url, {"Authorization": _basic(user, password)} if user else {}, None)
        if response.status_code != 200:
            with response:
                self._refuse(f"{what}: login at {urlsplit(realm).netloc}", "", response)
        try:
            answer = json.loads(self.read(response))
            return f"Bearer {answer.get('token') or answer['access_token']}"
        except (ValueError, KeyError, AttributeError) as error:
            raise RegistryError(f"{what}: {urlsplit(realm).netloc} gave no token") from error

    def _login(self) -> tuple[str, str, str]:
        """User, password and identity token from Docker's configuration; empty where there are none."""
        from docker import auth

        try:
            found = auth.resolve_authconfig(auth.load_config(), self.host) or {}
        except (docker.errors.DockerException, ValueError) as error:
            raise RegistryError(f"{self.host}: no login: {error}", hint=f"docker login {self.host}") from error
        entry = {key.lower(): value or "" for key, value in found.items()}  # helpers write these names in capitals
        return entry.get("username", ""), entry.get("password", ""), entry.get("identitytoken", "")


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _cause(error: BaseException) -> str:
    """The innermost reason of an error of requests or urllib3, without the addresses around it."""
    while True:
        inner = getattr(error, "reason", None)
        nested = [each for each in error.args if isinstance(each, BaseException)]
        following = inner if isinstance(inner, BaseException) else next(iter(nested), None)
        if following is None:
            return str(error).rpartition("): ")[2].strip() or type(error).__name__
        error = following
