"""Stages of a Dockerfile: names, parents, images, files, secrets; here-documents and continued lines."""

from pathlib import Path

from edgebuild.stages import chain, parse_stages

TEXT = """\
ARG SUITE=bookworm
FROM --platform=linux/amd64 debian:12 AS Base
# a comment
RUN apt-get update \\
 # between
 && apt-get install -y zstd
COPY --chmod=0644 overlay/files/ certs/*.crt /etc/
ADD https://example.com/file /file

FROM base AS tools
RUN --mount=type=secret,id=luet_auth --mount=type=bind,from=quay.io/kairos/agent:1,target=/mnt <<'EOF'
FROM nothing
COPY neither /x
EOF
COPY --link --from=0 /a /b
COPY ["a b", "c d", "/to/"]
RUN --mount=type=bind,target=/src true

FROM scratch
COPY --from=tools /x /
COPY <<A <<B /texts/
one
A
two
B
"""


def test_stages() -> None:
    stages = parse_stages(TEXT)
    assert list(stages) == ["base", "tools", "2"]
    base, tools, last = stages.values()
    assert base.instructions[0] == "ARG SUITE=bookworm"
    assert base.images == ("debian:12",)
    assert base.parents == ()
    assert base.files == ("overlay/files/", "certs/*.crt")
    assert tools.parents == ("base",)
    assert tools.images == ("quay.io/kairos/agent:1",)
    assert tools.secrets == ("luet_auth",)
    assert tools.files == ("a b", "c d", ".")
    assert last.parents == ("tools",)
    assert last.images == ()
    assert last.files == ()


def test_here_documents_end_where_they_end() -> None:
    stages = parse_stages("FROM a AS x\nRUN cat <<-'E' > /y\n\tFROM b\n\tE\nFROM x AS z\n")
    assert stages["z"].parents == ("x",)


def test_shifts_and_here_strings_are_no_here_documents() -> None:
    stages = parse_stages('FROM a AS x\nRUN echo $((1<<2)) <<< "word"\nFROM x AS z\n')
    assert list(stages) == ["x", "z"]


def test_chain_has_parents_first() -> None:
    stages = parse_stages(TEXT)
    assert chain(stages, "2") == ["base", "tools", "2"]
    assert chain(stages, "base", "tools") == ["base", "tools"]
    assert chain(stages, "missing") == []


def test_rendered_pipelines(root: Path) -> None:
    """Every stage of every rendered Dockerfile is read, with the files that it copies."""
    for file in sorted((root / "tests/golden").glob("*/Dockerfile")):
        text = file.read_text()
        stages = parse_stages(text)
        assert {"base-image", "iso-image", "boot-tree", "tools"} <= stages.keys(), file
        assert "base-image" in chain(stages, "boot-tree")
        wanted = {line.split(" ")[1] for line in text.splitlines() if line.startswith("FROM ")} - set(stages)
        assert {image for stage in stages.values() for image in stage.images} >= wanted - {"scratch"}
