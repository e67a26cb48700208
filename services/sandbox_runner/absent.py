"""What a checkout does not hold although the repository has it: submodules, files under Git LFS. Pure.

Both would have the host follow addresses that a stranger wrote, so neither is fetched; the agent is told.
"""

import re
from collections.abc import Mapping, Sequence

_SHOWN = 5
_LFS = re.compile(rb"^\s*(?P<pattern>\"[^\"]+\"|[^\s#]\S*)\s.*\bfilter=lfs\b", re.MULTILINE)


def absent(links: Sequence[bytes], attributes: Mapping[bytes, bytes]) -> str:
    """A sentence or two about what is missing; empty if nothing is.

    Args:
        links: the paths of other repositories' commits (mode 160000).
        attributes: each ``.gitattributes`` by its path.
    """
    said = []
    if links:
        said.append(f"Submodules are not checked out, their directories are empty: {_listed(links)}.")
    patterns = []
    for path, content in sorted(attributes.items()):
        directory = path.rpartition(b"/")[0]
        for match in _LFS.finditer(content):
            pattern = match["pattern"].strip(b'"')
            patterns.append(directory + b"/" + pattern if directory else pattern)
    if patterns:
        said.append(f"Files under Git LFS are pointers, not their contents: {_listed(patterns)}.")
    return " ".join(said)


def _listed(names: Sequence[bytes]) -> str:
    shown = [_readable(name) for name in names[:_SHOWN]]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(shown) + more


def _readable(name: bytes) -> str:
    text = name.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text[:80])
