"""Digests of upstream tags, asked of a real registry; what is remembered counts while it is away."""

from pathlib import Path

from edgebuild.records import Records
from edgebuild.run import run
from edgebuild.upstream import current_digests
from tests.registry_server import registry_server


def test_a_tag_that_moves_and_a_registry_that_is_away(debian_image: str, tmp_path: Path) -> None:
    records, said = Records(tmp_path / "records"), list[str]()
    with registry_server(tmp_path / "registry") as address:
        reference, pinned = f"{address}/library/base:1", f"{address}/library/base@sha256:{'1' * 64}"
        run(["docker", "image", "tag", debian_image, reference])
        run(["docker", "push", "--quiet", reference])
        first = current_digests([reference, pinned], records, said.append)
        assert first[reference].startswith("sha256:")
        assert first[pinned] == f"sha256:{'1' * 64}"
        run(
            ["docker", "buildx", "build", "--quiet", "--push", "--provenance=false", "--tag", reference, "-"],
            stdin=f"FROM {debian_image}\nLABEL moved=yes\n",
        )
        second = current_digests([reference], records, said.append)
        assert second[reference] not in {"", first[reference]}
        assert not said
        missing = current_digests([f"{address}/library/none:1"], records, said.append)
        assert list(missing.values()) == [""]
    assert current_digests([reference], records, said.append) == second
    assert len(said) == 2
    assert "count as where the last build found them" in said[1]
    run(["docker", "image", "rm", reference])
