"""In which forms a secret stands in text that programs write: as patterns for Python's re and for grep -E. Pure."""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

SHORTEST = 8  # what is shorter stands everywhere by chance
SHORTEST_PART = 4  # of what is hidden in text
WHOLE_BASE64, PIECE_BASE64 = 24, 32
BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_-=")
ARMOUR = re.compile(r"-----(BEGIN|END) ")  # everybody's, and in many programs
ASSIGNMENT = re.compile(r"""["']?([\w.-]+)["']?\s*(?::\s|[:=](?=[^=]))\s*["']?(.+?)["']?,?$""")
LONG_KEY = 8  # lines; keys on elliptic curves have 3 or 4, of RSA 13 and more
SECRET_NAME = re.compile(r"pass|token|secret|key|auth|credential", re.IGNORECASE)
SPECIAL = frozenset("\\.^$*+?()[]{}|")
BACKSLASHES = r"\\{1,4}"  # more than one: text in JSON in JSON
NAMED = {
    "\0": "0", "\a": "a", "\b": "b", "\t": "t", "\n": "n", "\v": "v", "\f": "f", "\r": "r", "\x1b": "e",
    "\x85": "N", "\xa0": "_", "\u2028": "L", "\u2029": "P",
}  # fmt: skip
OTHER = {
    " ": (r"\+",),
    "$": (r"\$\$",),
    "%": ("%%",),
    '"': ('""', "&quot;", "&#34;"),
    "'": ("''", f"'{BACKSLASHES}''", "'\"'\"'", "&#39;", "&#[xX]27;", "&apos;"),
    "&": ("&amp;",),
    "<": ("&lt;",),
    ">": ("&gt;",),
}


@dataclass(frozen=True)
class Form:
    """One pattern. `anchor`, letters and digits or nothing, stands in every match: most text is refused by it."""

    kind: Literal["text", "base64"]
    part: str
    pattern: str
    anchor: str

    @cached_property
    def regex(self) -> re.Pattern[str]:
        return re.compile(self.pattern)

    @cached_property
    def bytes_regex(self) -> re.Pattern[bytes]:
        return re.compile(self.pattern.encode())

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where it stands in the text; of base64 the whole word, which holds the ends of the value too."""
        if self.anchor not in text:
            return
        for match in self.regex.finditer(text):
            start, end = match.span()
            if self.kind == "base64":
                while start and text[start - 1] in BASE64:
                    start -= 1
                while end < len(text) and text[end] in BASE64:
                    end += 1
            yield start, end

    def name(self, found: str) -> str:
        """What to call this form, for what was found in it."""
        if self.kind == "base64":
            return "in base64"
        if found == self.part:
            return "as it is"
        if re.search("[%=][0-9A-Fa-f]{2}", found):
            return "URL-escaped"
        return "escaped" if "\\" in found else "quoted"


def forms_to_hide(value: str) -> list[Form]:
    """All forms of the value, and of the lines of a longer one."""
    lines = [line.strip() for line in value.splitlines()]
    parts = {value.strip(), *(line for line in lines if len(line) >= SHORTEST and not ARMOUR.match(line))}
    parts |= {found for line in lines if len(found := _assigned(line)) >= SHORTEST_PART}
    return [form for part in sorted(parts, key=len, reverse=True) if part for form in _forms(part)]


def forms_to_find(value: str) -> list[Form]:
    """Forms that stand nowhere by chance, each within one line; nothing for a value that is too short.

    Of lines such as `username: me` and `password: hunter2` only the second's value is a secret.
    """
    lines = [line.strip() for line in re.split(r"[\r\n\0]", value) if line.strip()]
    if len(lines) == 1:
        parts = [lines[0], _assigned(lines[0])]
    else:
        private = [_assigned(line) if ASSIGNMENT.match(line) else line for line in lines if not ARMOUR.match(line)]
        parts = _without_public_key(private) if ARMOUR.match(lines[0]) else private
    return [form for part in dict.fromkeys(parts) if len(part) >= SHORTEST for form in _forms(part)]


def _without_public_key(lines: list[str]) -> list[str]:
    """Of a private key in PEM what its public key has not: it begins with the secret (EC), or ends with it (RSA)."""
    body = [line for line in lines if line]
    return body[:1] if len(body) < LONG_KEY else body[len(body) // 2 :]


def _assigned(line: str) -> str:
    match = ASSIGNMENT.match(line)
    return match[2] if match and SECRET_NAME.search(match[1]) else ""


def _forms(part: str) -> list[Form]:
    text = "".join(_run(match[0]) for match in re.finditer(r"\\+|[^\\]", part, re.DOTALL))
    words = sorted(set(_base64(part.encode())))
    encoded = [Form("base64", part, _base64_pattern(word), _anchor(word)) for word in words]
    return [Form("text", part, text, _anchor(part)), *encoded]


def _anchor(text: str) -> str:
    # No program escapes letters and digits.
    return max(re.findall("[A-Za-z0-9]+", text), key=len, default="")


def _run(run: str) -> str:
    """One character, or a run of backslashes, in all the ways in which it is written."""
    if run[0] == "\\":
        # As one group: of a run of groups, each of several backslashes, there are too many readings.
        return rf"([%=](25){{0,2}}5[Cc]|\\(x|u00)5[Cc]|\\){{{len(run)},{4 * len(run)}}}"
    if run.isascii() and run.isalnum():
        return run
    raw, code = run.encode(), ord(run)
    ways = ["".join(rf"[%=](25){{0,2}}{_hex(byte, 2)}" for byte in raw)]
    ways.append("".join(rf"{BACKSLASHES}x{_hex(byte, 2)}" for byte in raw))
    ways.append("".join(rf"{BACKSLASHES}0?{byte:03o}" for byte in raw))
    if code < 0x100:
        ways.append(rf"{BACKSLASHES}x{_hex(code, 2)}")
    if code < 0x10000:
        ways.append(rf"{BACKSLASHES}u{_hex(code, 4)}")
    else:
        high, low = 0xD800 + ((code - 0x10000) >> 10), 0xDC00 + (code & 0x3FF)
        ways.append(rf"{BACKSLASHES}u{_hex(high, 4)}{BACKSLASHES}u{_hex(low, 4)}")
    ways.append(rf"{BACKSLASHES}U{_hex(code, 8)}")
    if run in NAMED:
        ways.append(BACKSLASHES + NAMED[run])
    ways = [*OTHER.get(run, ()), *ways, rf"\\{{0,4}}{_literal(run)}"]  # Python takes the first: the longer ones
    return "(" + "|".join(dict.fromkeys(ways)) + ")"


def _literal(character: str) -> str:
    return "\\" + character if character in SPECIAL else character


def _hex(number: int, digits: int) -> str:
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in f"{number:0{digits}x}")


def _base64(raw: bytes) -> Iterator[str]:
    """What the bytes become in base64, at each of the three places in a longer text, in either alphabet.

    Long ones in pieces, of which at least one is whole when the base64 is broken into lines.
    """
    if len(raw) < SHORTEST_PART:
        yield base64.b64encode(raw).decode()
        return
    for before in range(3):
        text = base64.b64encode(b"\0" * before + raw).decode()
        text = text[(0, 2, 3)[before] : 8 * (before + len(raw)) // 6]  # what does not depend on the neighbours
        count = 1 if len(text) < WHOLE_BASE64 else max(2, -(-len(text) // PIECE_BASE64))
        size = -(-len(text) // count)
        for start in range(0, len(text), size):
            yield text[start : start + size]


def _base64_pattern(text: str) -> str:
    other = {"+": "([+-]|%2[Bb])", "/": r"(\\{0,4}/|_|%2[Ff])", "=": "(=|%3[Dd])"}
    return "".join(other.get(character, character) for character in text)
