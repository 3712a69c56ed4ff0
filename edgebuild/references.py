"""Names of images, and what a registry means by what it says. Pure."""

import re

STATUS = r"(?<![\w:./-])({})(?![\w./-])"  # standing alone: `:500/` is a port, `k3s-1.2-403` part of a tag
ADDRESS = re.compile(r"https?://[^\s\"]+")  # holds names, which may read like a reason
TRANSIENT = re.compile(
    rf"(?i){STATUS.format('408|429|500|502|503|504|52[0-9]')}|too ?many ?requests|time-?out|timed out|\bEOF\b|GOAWAY|"
    r"connection (was |is )?(reset|refused|aborted|closed)|closed network connection|broken pipe|stream error|"
    r"internal server error|service unavailable|bad gateway|temporar(y|ily)|no route to host|unreachable|misbehaving"
)
# What stays as it is until somebody does this.
ADVICE = {
    rf"{STATUS.format('401|403')}|unauthorized|denied|authentication required|no basic auth": "docker login {login}",
    "x509|certificate|HTTPS client": "put its CA into /etc/docker/certs.d/{host}/ca.crt on the engine's host",
    rf"{STATUS.format('404')}|not found|not known|not exist|name (unknown|invalid)|invalid reference|no such host": (
        "check image.registry and image.repository; some registries want {repository} created first"
    ),
}


def split_reference(reference: str) -> tuple[str, str, str]:
    """Host, repository and tag, by Docker's rules: no host means Docker Hub; no tag means latest, or a digest."""
    named, pinned, _ = reference.partition("@")
    head, slash, rest = named.partition("/")
    is_host = bool(slash) and ("." in head or ":" in head or head == "localhost" or head != head.lower())
    host, path = (head, rest) if is_host else ("docker.io", named)
    repository, _, tag = path.partition(":")
    if host == "index.docker.io":
        host = "docker.io"
    if host == "docker.io" and "/" not in repository:
        repository = f"library/{repository}"
    return host, repository, tag or ("" if pinned else "latest")


def lifetime(reference: str) -> str:
    """How long a registry keeps an image, where it is known to throw images away; empty otherwise."""
    host, _, tag = split_reference(reference)
    if host != "ttl.sh":
        return ""
    if re.fullmatch(r"[0-9]+[smhd]", tag):
        return f"ttl.sh keeps this image for {tag} (24h at most)"
    return "ttl.sh keeps images for 24 hours at most, by its own documentation 1 hour when the tag names no time"


def is_transient(message: str) -> bool:
    """Whether trying again can help."""
    return bool(TRANSIENT.search(ADDRESS.sub("", message))) and not what_helps("", message)


def what_helps(reference: str, message: str) -> str:
    """What helps when this is why the reference was not pushed; empty when trying again does."""
    host, repository, _ = split_reference(reference)
    for pattern, advice in ADVICE.items():
        if re.search(pattern, ADDRESS.sub("", message), re.IGNORECASE):
            login = "" if host == "docker.io" else host
            return advice.format(host=host, repository=repository, login=login).strip()
    return ""
