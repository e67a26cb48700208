"""Whether a change has substance: more than white space and file modes (pure).

White space counts where it means something: between words of a line, since it may be in a text, and at the
beginning of lines in languages that are indented with a meaning, and in every file whose kind is unknown.
"""

import re

_FREE_INDENTATION = re.compile(
    rb"\.(c|h|cc|cpp|cxx|hpp|hxx|cs|css|scss|less|d|dart|go|java|js|cjs|mjs|jsx|json|kt|kts|m|mm|php|pl|pm|r|rb"
    rb"|rs|scala|sh|bash|sql|swift|ts|tsx|xml|html?|svg|proto|lua|vue|zig)$",
    re.IGNORECASE,
)
_LINE_ENDS = re.compile(rb"\r\n|\r|\n")


def same_substance(path: bytes, before: bytes, after: bytes) -> bool:
    """Whether two contents of one file differ in nothing but white space that has no meaning."""
    if before == after:
        return True
    if b"\0" in before or b"\0" in after:
        return False
    free = _FREE_INDENTATION.search(path) is not None
    return _lines(before, free) == _lines(after, free)


def _lines(content: bytes, free: bool) -> list[bytes]:
    lines = [line.strip() if free else line.rstrip() for line in _LINE_ENDS.split(content)]
    return [line for line in lines if line]
