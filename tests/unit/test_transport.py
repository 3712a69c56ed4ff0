"""Where a registry is asked, and how long one waits for it."""

import ssl
from pathlib import Path

import pytest

from edgebuild import transport
from edgebuild.errors import RegistryError
from edgebuild.transport import BadMoment, Patience


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("docker.io", "https://registry-1.docker.io/v2/"),
        ("index.docker.io", "https://registry-1.docker.io/v2/"),
        ("ttl.sh", "https://ttl.sh/v2/"),
        ("registry.example.com:5000", "https://registry.example.com:5000/v2/"),
        ("localhost:5000", "http://localhost:5000/v2/"),
        ("127.0.0.1", "http://127.0.0.1/v2/"),
        ("127.1.2.3:80", "http://127.1.2.3:80/v2/"),
        ("[::1]:5000", "http://[::1]:5000/v2/"),
        ("127.0.0.1.example.com", "https://127.0.0.1.example.com/v2/"),
        ("localhost.example.com:5000", "https://localhost.example.com:5000/v2/"),
    ],
)
def test_only_loopback_is_asked_without_tls(host: str, address: str) -> None:
    assert transport.endpoint(host) == address


def test_patience() -> None:
    waits: list[float] = []
    moments = [BadMoment("busy"), BadMoment("busy", seconds=9.0), BadMoment("busy", seconds=9999.0)]

    def action() -> str:
        if moments:
            raise moments.pop(0)
        return "done"

    assert Patience(attempts=4, wait=waits.append).again(action) == "done"
    assert 0.5 <= waits[0] <= 1
    assert waits[1:] == [9.0, transport.LONGEST_WAIT]
    moments += [BadMoment("busy")]
    with pytest.raises(RegistryError, match="busy") as caught:
        Patience(attempts=1, wait=waits.append).again(action)
    assert caught.value.message == "busy"
    assert len(waits) == 3


def test_a_broken_certificate_names_its_file(tmp_path: Path) -> None:
    assert isinstance(transport._context(tmp_path), ssl.SSLContext)
    (tmp_path / "ca.crt").write_text("no certificate")
    with pytest.raises(RegistryError, match=r"ca\.crt: cannot be used as a certificate"):
        transport._context(tmp_path)
    (tmp_path / "ca.crt").unlink()
    (tmp_path / "client.cert").write_text("no certificate, and no key beside it")
    with pytest.raises(RegistryError, match="client"):
        transport._context(tmp_path)
