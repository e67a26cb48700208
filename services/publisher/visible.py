"""Characters that a reader cannot see, or that a page or terminal obeys, taken out. Pure.

What people write stays as it is: emoji with their joiners, selectors and flags, words of scripts that need
joiners, marks of direction. What can hide words goes: escapes, control and tag characters, overrides of
direction, fillers, and runs of joiners or selectors, which can spell out bytes.
"""

import re
import unicodedata

_ESCAPES = re.compile(r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b\[[0-?]*[ -/]*[@-~]|\x1b.?")
_BREAKS = re.compile("\r\n?|[\v\f\x85\u2028\u2029]")
_TAGS = re.compile(
    "(\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f)|[\U000e0000-\U000e007f]"
)
_JOINERS = re.compile("(^|\\s)[\u200c\u200d]+|([\u200c-\u200f\u061c])[\u200c-\u200f\u061c]+", re.MULTILINE)
_SELECTORS = re.compile("([\ufe00-\ufe0f\U000e0100-\U000e01ef])[\ufe00-\ufe0f\U000e0100-\U000e01ef]+")

_FORMAT = frozenset("\u200c\u200d\u200e\u200f\u061c\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u08e2")
"""Format characters that words need: joiners, marks of direction, signs around Arabic and Syriac numbers."""
_BLANKS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
"""Letters and marks that show nothing."""


def visible(text: str) -> str:
    """``text`` without what a reader cannot see; every kind of line break becomes a newline."""
    text = _BREAKS.sub("\n", _ESCAPES.sub("", text))
    if text.isascii() and text.isprintable():
        return text
    text = _TAGS.sub(lambda match: match[1] or "", text)
    text = "".join(char for char in text if char in "\n\t" or not _hidden(char))
    return _SELECTORS.sub(r"\1", _JOINERS.sub(r"\1\2", text))


def _hidden(char: str) -> bool:
    category = unicodedata.category(char)
    if category == "Cf":
        return char not in _FORMAT and not 0xE0020 <= ord(char) <= 0xE007F  # what is left of those is a flag
    return category in ("Cc", "Cs", "Co") or char in _BLANKS
