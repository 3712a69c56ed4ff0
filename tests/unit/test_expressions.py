"""Whatever stands in an expression, rendering ends soon: in a text, or in a Jinja error that says why."""

import jinja2
import pytest

from edgebuild.cloudconfig import render_user_data
from edgebuild.errors import InputError
from edgebuild.expressions import Sandbox

LARGE = "makes too much, or takes too long"


def refusal(source: str, *, statements: bool = False) -> str:
    with pytest.raises(jinja2.TemplateError) as caught:
        Sandbox(statements=statements).render_text(source, {})
    return caught.value.message or ""


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ 9**9**9 }}", LARGE),
        ("{{ (9**99)*9**99 }}", LARGE),
        ("{{ 'a'*10**10 }}", LARGE),
        ("{{ 10000000000*'a' }}", LARGE),
        ("{{ [[1]*30000]*30000 }}", LARGE),
        ("{{ [1]*99999999 }}", LARGE),
        ("{{ range(10**9)|list }}", "Range too big"),
        ("{{ 'a'|center(10**10) }}", "No filter named 'center'"),
        ("{{ 'a'|indent(10**10) }}", "No filter named 'indent'"),
        ("{{ 'a'.ljust(10**10) }}", "unsafe"),
        ("{{ '%9999999999d' % 1 }}", "% is for numbers"),
        ("{{ '{:>9999999999}'.format(1) }}", "unsafe"),
        ("{{ 'a'.encode() }}", "unsafe"),
        ("{{ (1).to_bytes(10**10, 'big') }}", "unsafe"),
        ("{{ lipsum(10**9) }}", "'lipsum' is undefined"),
        ("{{ ('a'*1000)|replace('', 'b'*100000) }}", LARGE),
        ("{{ ('a'*1000).replace('', 'b'*100000) }}", LARGE),
        ("{{ (['a'*10000]*1000)|map('upper')|join(', ') }}", LARGE),
        ("{{ [1]|map('upper') }}", "put `| list` behind"),
        ("{{ 1/0 }}", "division by zero"),
        ("{{ ''.__class__ }}", "unsafe"),
        ("{{ (1, 2) }}", "a list is written in brackets"),
        ("{% for a in [1] %}{% endfor %}", "only {{ }}, and no {% %}, may stand here"),
        ("{% if true %}{% endif %}", "only {{ }}, and no {% %}, may stand here"),
        ("{{ " + "(" * 5000 + ")" * 5000 + " }}", "nested too deeply"),
        ("{{ " + "9" * 5000 + " }}", "4300 digits"),
    ],
)
def test_what_would_not_end(source: str, expected: str) -> None:
    assert expected in refusal(source)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", LARGE),
        ("{% for a in range(9999) %}" + "x" * 9999 + "{% endfor %}", LARGE),
        ("{% for a in [[]] recursive %}{{ loop([a, a]) }}{% endfor %}", "`recursive` may not stand here"),
        ("{% for a in [1] %}" * 30 + "{% endfor %}" * 30, "too many statically nested blocks"),
        ("{% set a = 1 %}", "only {% if %} and {% for %} may stand here"),
        ("{% macro a() %}{% endmacro %}", "only {% if %} and {% for %} may stand here"),
        ("{% include 'a' %}", "only {% if %} and {% for %} may stand here"),
        # Ten times as many in each round inside, and then one comparison.
        (
            "".join(f"{{% for a{n} in [[{', '.join([f'a{n - 1}' if n else '1'] * 10)}]] %}}" for n in range(15))
            + "{{ a14 == [] }}" + "{% endfor %}" * 15,
            LARGE,
        ),
    ],
)  # fmt: skip
def test_statements_that_would_not_end(source: str, expected: str) -> None:
    assert expected in refusal(source, statements=True)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ 'a-b'.replace('-', '_') ~ 1 }}", "a_b1"),
        ("{{ 'a-b'|replace('-', '_')|upper }}", "A_B"),
        ("{{ [1, 2]|map('string')|join('-') }}", "1-2"),
        ("{{ {'amd64': 'amd'}['amd64'] }}", "amd"),
        ("{{ 2**10 + 7 // 2 - 7 % 4 }}", "1024"),
        ("{{ '22.04'.split('.')[0] }}", "22"),
        ("{{ 'yes' if 'a' in ['a'] and 1 < 2 else 'no' }}", "yes"),
        ("{{ nothing|default('x') }}", "x"),
        ("{% for name, value in {'a': 1}.items() %}{{ loop.index }}{{ name }}{{ value }}{% endfor %}", "1a1"),
    ],
)
def test_what_is_of_use_works(source: str, expected: str) -> None:
    assert Sandbox(statements=True).render_text(source, {}) == expected


def test_the_bounds_are_those_of_all_together() -> None:
    sandbox = Sandbox(statements=False)

    def many() -> None:
        for _ in range(10_000):
            sandbox.render_text("{{ 'a' * 10000 }}", {})

    with pytest.raises(jinja2.TemplateError, match=LARGE):
        many()


def test_user_data_names_the_line() -> None:
    with pytest.raises(InputError, match=r"^user-data.j2:3: this expression makes too much"):
        render_user_data("#cloud-config\n\na: {{ 'a'*10**10 }}\n", {})
    with pytest.raises(InputError, match=r"^user-data.j2:2: ZeroDivisionError"):
        render_user_data("#cloud-config\na: {{ 1/0 }}\n", {})
    with pytest.raises(InputError, match=r"^user-data.j2:2: a value holds bytes that are not UTF-8"):
        render_user_data("#cloud-config\na: {{ token }}\n", {"token": "\udcff"})
