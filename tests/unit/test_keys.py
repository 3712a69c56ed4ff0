"""Content keys and the words for what changed between two of them."""

from typing import Any

import pytest

from edgebuild.keys import Document, SiteFiles, Sources, image_document, iso_document, key_of, lines, stage_documents
from edgebuild.reasons import changes, difference
from edgebuild.stages import parse_stages

TEXT = """\
FROM quay.io/kairos/ubuntu:1 AS base
RUN apt-get install -y curl
FROM base AS image
COPY overlay/ /
RUN --mount=type=secret,id=auth true
"""
FILES = {"overlay/": {"overlay/a": "0644 aa", "overlay/b": "0644 bb"}}


def documents(text: str = TEXT, **sources: Any) -> tuple[Document, dict[str, Document]]:
    """The document of the stage `image` as an image, and every document by key."""
    known = Sources(
        **{"files": FILES, "images": {"quay.io/kairos/ubuntu:1": "sha256:1111"}, "secrets": {"auth": "x"}, **sources}
    )
    stages = stage_documents(parse_stages(text), ["image"], known)
    image = image_document("image", key_of(stages["image"]), {"platform": "linux/amd64"})
    return image, {key_of(each): each for each in stages.values()}


def words(before: tuple[Document, dict[str, Document]], after: tuple[Document, dict[str, Document]]) -> list[str]:
    everything = {**before[1], **after[1]}
    return difference(before[0], after[0], everything.get, names={"quay.io/kairos/ubuntu:1": "base"})


def test_the_same_inputs_have_the_same_key() -> None:
    assert key_of(documents()[0]) == key_of(documents()[0])
    assert words(documents(), documents()) == []
    assert key_of(documents(TEXT.replace("\nRUN", "\n# a comment\nRUN"))[0]) == key_of(documents()[0])


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (documents(TEXT.replace("curl", "curl wireguard-tools")), ["base: package wireguard-tools added"]),
        (documents(TEXT.replace("curl", "jq")), ["base: package jq added", "base: package curl removed"]),
        (documents(TEXT.replace("RUN apt", "RUN echo 1\nRUN apt")), ["base: `RUN echo 1` added"]),
        (
            documents(images={"quay.io/kairos/ubuntu:1": "sha256:2222"}),
            ["base image: digest moved from 1111 to 2222"],
        ),
        (documents(files={"overlay/": {"overlay/a": "0644 aa", "overlay/c": "x"}}), ["overlay/b removed", "overlay/c added"]),
        (documents(files={"overlay/": {**FILES["overlay/"], "overlay/a": "0755 aa"}}), ["overlay/a changed"]),
        (documents(secrets={"auth": "y"}), ["secret auth changed"]),
        (
            documents(TEXT.replace("FROM base AS image", "FROM alpine AS more\nFROM base AS image\nCOPY --from=more /x /")),
            ["stage more added", "image: `COPY --from=more /x /` added"],
        ),
    ],
)  # fmt: skip
def test_differences_in_words(after: tuple[Document, dict[str, Document]], said: list[str]) -> None:
    assert words(documents(), after) == said
    assert key_of(documents()[0]) != key_of(after[0])


def test_a_forgotten_document_is_said() -> None:
    before, after = documents(), documents(TEXT.replace("curl", "jq"))
    assert difference(before[0], after[0], after[1].get) == ["image: what it was made from is not recorded"]


def test_changes_in_full() -> None:
    before, after = documents(), documents(TEXT.replace("curl", "jq"))
    full = list(changes(before[0], after[0], {**before[1], **after[1]}.get))
    assert full[:2] == ["", "  stage base"]
    assert "    -RUN apt-get install -y curl" in full
    assert "    +RUN apt-get install -y jq" in full


def site(user_data: str, menu: str = "a\nb", **files: str) -> Document:
    def keyed(data: bytes) -> str:
        return f"<{data.decode()}>"

    return iso_document("sha256:1", {"name": "x"}, SiteFiles(lines(user_data, keyed), menu.split("\n"), files))


def test_an_iso_tells_the_lines_of_its_texts() -> None:
    def said(after: Document) -> list[str]:
        return difference(site("1\n2\n3\n4\n5"), after, lambda _: None)

    assert said(site("1\n2\nx\ny\n5")) == ["user-data changed: lines 3–4"]
    assert said(site("1\n2\n3\n4\n5\n6")) == ["user-data changed: line 6 added"]
    assert said(site("1\n4\n5")) == ["user-data changed: lines 2–3 removed"]
    assert said(site("1\n2\n3\n4\n5", "a\nc")) == ["boot menu changed: line 2"]
    assert said(site("1\n2\n3\n4\n5", bundle="1")) == ["bundle added"]
    assert said({**site("1\n2\n3\n4\n5"), "boot tree": "sha256:2"}) == ["the boot tree is another one"]
    assert said({**site("1\n2\n3\n4\n5"), "settings": {"name": "y"}}) == ["name: y, was x"]
    dated = {**site("1\n2\n3\n4\n5"), "settings": {"name": "x", "date": 86400}}
    assert difference({**dated, "settings": {"name": "x", "date": 0}}, dated, lambda _: None) == [
        "the commit that dates it: 1970-01-02 00:00:00 UTC, was 1970-01-01 00:00:00 UTC"
    ]
    assert said({**site("1\n2\n3\n4\n5"), "format": 99}) == ["edgebuild itself has changed"]


def test_keys_of_many_images_share_their_base() -> None:
    """Each document holds its own only: 263 images of one base are no more than 263 short texts."""
    text = TEXT + "".join(f"FROM image AS version-{number}\nRUN echo {number}\n" for number in range(263))
    names = [f"version-{number}" for number in range(263)]
    made = stage_documents(parse_stages(text), names, Sources(files=FILES))
    assert len(made) == 265
    assert len({key_of(document) for document in made.values()}) == 265
    assert max(len(str(made[name])) for name in names) < 300
