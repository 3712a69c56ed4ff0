"""Values are quoted for where they land: hypothesis tries to break out of each place."""

import shutil
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgebuild import quoting
from edgebuild.run import run
from tests.unit.nasty import ONE_LINE

LINE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"))
WORDS = st.lists(st.one_of(LINE, st.sampled_from(ONE_LINE)), min_size=20, max_size=200)
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.text(st.characters(exclude_categories=["Cs"])),
        st.sampled_from(ONE_LINE),
    ),
    lambda inner: st.one_of(
        st.lists(inner), st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=10,
)


@pytest.mark.process
@settings(max_examples=20)
@given(words=WORDS)
@example(words=ONE_LINE)
def test_words_of_a_shell(words: list[str]) -> None:
    """A real shell gets each word as it was, in a script of one line and in one that the Dockerfile holds."""
    script = f"printf '%s\\0' {' '.join(map(quoting.shell, words))}"
    assert "\n" not in script
    for shell in ("sh", "bash"):
        assert shutil.which(shell)
        assert run([shell, "-eu"], stdin=script, env={"LC_ALL": "C.UTF-8"}).stdout.split("\0")[:-1] == words


@given(value=VALUES)
@example(value=ONE_LINE)
@example(value=["a\nb", {"c\nd": "\u2028\x85\r\n"}])
def test_yaml(value: Any) -> None:
    text = quoting.yaml_line(value)
    assert len(text.splitlines()) == 1
    assert yaml.safe_load(text) == value
    shared = [value, value]
    assert yaml.safe_load(f"a: {quoting.yaml_line(shared)}\nb: {quoting.yaml_line(shared)}\n") == {
        "a": shared,
        "b": shared,
    }


@given(text=LINE)
def test_one_line_stays_one(text: str) -> None:
    for quote in (quoting.shell, quoting.dockerfile_word, quoting.grub):
        assert "\n" not in quote(text)
    copied = quoting.dockerfile_copy(text, text)
    assert len(copied.splitlines()) == 1
    assert copied.isascii()


@pytest.mark.parametrize("quote", [quoting.shell, quoting.dockerfile_word, quoting.grub])
@pytest.mark.parametrize("text", ["a\nRUN x", "a\r", "\0", "\udcff"])
def test_what_cannot_stand_in_a_line(quote: Any, text: str) -> None:
    with pytest.raises(ValueError, match="cannot stand in one line"):
        quote(text)


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(ValueError, match="not UTF-8"):
        quoting.yaml_line({"a": ["\udcff"]})
    with pytest.raises(ValueError, match="no UTF-8"):
        quoting.dockerfile_copy("a\udcff", "b")


def test_dull_values_stay_readable() -> None:
    assert quoting.grub("console=ttyS0,115200n8") == "console=ttyS0,115200n8"
    assert quoting.shell("k8s/k3s@1.33.6") == "k8s/k3s@1.33.6"
    assert quoting.hcl({"a": ["x${y}", 1, True]}) == {"a": ["x$${y}", 1, True]}
