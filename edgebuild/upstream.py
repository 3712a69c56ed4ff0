"""The digests that upstream tags lead to now: asked of their registries, and remembered for when these are away."""

import hashlib
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

from edgebuild.errors import EdgebuildError
from edgebuild.records import Records

CONNECT_SECONDS, READ_SECONDS = 5.0, 15.0
ASKED_AT_ONCE = 8


def current_digests(references: Collection[str], records: Records, say: Callable[[str], None]) -> dict[str, str]:
    """Reference to digest; empty where nothing is known. A reference with a digest is not asked for."""
    found = {reference: reference.rpartition("@")[2] for reference in references if "@" in reference}
    asked = sorted(set(references) - set(found))
    if not asked:
        return found
    with ThreadPoolExecutor(max_workers=ASKED_AT_ONCE) as pool:
        answers = dict(zip(asked, pool.map(_ask, asked), strict=True))
    for reference, digest in answers.items():
        name = hashlib.sha256(reference.encode()).hexdigest()
        noted = records.get("upstream", name) or {}
        if digest and noted.get("digest") != digest:
            records.add("upstream", name, digest=digest)
        found[reference] = digest or str(noted.get("digest", ""))
    if silent := sorted({reference.partition("/")[0] for reference, digest in answers.items() if not digest}):
        hosts = ", ".join(silent)
        say(f"note: {hosts}: no answer, or no such image; its tags count as where the last build found them")
    return found


def _ask(reference: str) -> str:
    """Empty when the registry does not tell: BuildKit, which knows the engine's own images too, has the last word."""
    from edgebuild.oci import Registry  # costs 0.2 s, and a bootstrapped base asks nobody
    from edgebuild.references import split_reference
    from edgebuild.transport import Patience

    host, repository, tag = split_reference(reference)
    patience = Patience(connect_seconds=CONNECT_SECONDS, read_seconds=READ_SECONDS, attempts=1)
    try:
        return Registry(host, patience=patience).manifest(repository, tag)[0]
    except EdgebuildError:
        return ""
