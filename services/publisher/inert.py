"""Markdown by others as Markdown that does nothing. Pure.

GitHub reads Markdown in its own way, and a second reader of the same text could be talked into seeing code
where GitHub sees an image. So nothing is left as it came: fences are written anew at the margin, a code
span is one only where no reading of the line could differ, and in everything else each character that can
begin a link, an image, a tag or a reference is written so that it cannot. Sources: CommonMark 0.31, GitHub
Flavored Markdown 0.29.
"""

import html
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

JOINER = "\u2060"
"""Shows nothing, and ends what GitHub takes for a mention or a reference."""

_FENCE = re.compile(r"[ \t]*(?:(`{3,})([^`]*)|(~{3,})(.*))$")
_CODE = re.compile(
    r"(?P<comment><!--.*?(?:--!?>|\Z))|\\[!-/:-@\[-`{-~]"
    r"|(?<![`$])(?P<code>(?P<ticks>`+)(?!`)[^\n]*?[^`\n](?P=ticks)(?!`))",
    re.DOTALL,
)
_DELIMITER_ROW = re.compile(r"^(?=[^\n]*\|)(?=[^\n]*-)[\s|:>-]+$", re.MULTILINE)
_WRITTEN = re.compile(r"\\([!-/:-@\[-`{-~])|&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_PLAIN_ESCAPES = frozenset("[]<>&@#`~!:/.-")
_TARGET = r"""\(\s*<?([^()\s<>]*)>?(?:\s+(?:"[^"\n]*"|'[^'\n]*'))?\s*\)"""
_IMAGE = re.compile(r"!\[([^\[\]\n]*)\](?:" + _TARGET + r"|\[[^\[\]\n]*\])?")
_LINK = re.compile(r"\[([^\[\]\n]*)\]" + _TARGET)
_BARE = re.compile(
    r"(?i)(?:(?:https?|ftps?)://|(?<![a-z0-9])www\.|\b(?:javascript|vbscript|mailto|xmpp):(?=\S)"
    r"|\bdata:(?=[a-z]+/|[,;])|(?<![:\w/])//(?=\w))[^\s<>`\ue000-\ue001]*"
)
_SAFE_URL = re.compile(r"https?://[A-Za-z0-9.:-]+(?:/[A-Za-z0-9._~/+#=-]*)?")
_TELLING = re.compile(r"/(?:issues|pull|pulls|discussions)/+\d", re.IGNORECASE)
_TELLS = re.compile(r"@(?=\w)|#(?=\d)|(?i:(?<![a-z0-9])gh-)(?=\d)")
_HEADING = re.compile(
    r"^((?:[ \t]*(?:>|[-*+]|\d{1,9}[.)]))*[ \t]*)#{1,6}(?:[ \t]+([^\n]*?))?[ \t]*#*[ \t]*$", re.MULTILINE
)
_UNDERLINE = re.compile(r"^([ \t>]*)(?:(=+)|-+)[ \t]*$", re.MULTILINE)
_MARKERS = re.compile(r"^(?:>\s*|(?:[-*+]|#{1,6}|\d{1,9}[.)])(?:\s+|$))+")
_ACTIVE_FENCES = frozenset({"mermaid", "geojson", "topojson", "stl", "math", "suggestion"})
"""What GitHub renders or offers to apply instead of showing."""


class Rules(NamedTuple):
    """Where links may lead (a host in lower case), and what takes hidden characters and credentials out."""

    host: str
    clean: Callable[[str], str]


class Fence(NamedTuple):
    """Lines of code."""

    info: str
    lines: list[str]


def render(text: str, rules: Rules) -> str:
    """The text, which was cleaned, as blocks that do nothing; it must begin a line."""
    return (
        "\n".join(
            fenced(block.lines, block.info) if isinstance(block, Fence) else _prose(block, rules)
            for block in _blocks(text)
        )
        .rstrip()
        .lstrip("\n")
    )


def inline(text: str, rules: Rules) -> str:
    """The text within one line, without what would begin a block there."""
    return _MARKERS.sub("", _spans(" ".join(text.split()), rules).strip())


def fenced(lines: list[str], info: str) -> str:
    """Lines of code at the margin, behind a fence that none of them closes."""
    content = broken("\n".join(lines))
    longest = max((len(run) for run in re.findall(r"`+", content)), default=0)
    word = re.match(r"[A-Za-z0-9+#-]{0,20}", info.strip())
    language = word[0] if word and word[0].lower() not in _ACTIVE_FENCES else ""
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{content}\n{fence}"


def broken(text: str) -> str:
    """Text with no beginning of an HTML comment: nobody finds a marker of ours in it."""
    return text.replace("<!--", f"<!{JOINER}--")


def quiet(text: str) -> str:
    """Text that mentions nobody and refers to nothing."""
    return _TELLS.sub(lambda match: match[0] + JOINER, text)


def without_links(text: str) -> str:
    """Text without anything that becomes a link by itself."""
    return _BARE.sub(lambda match: "(link removed)" + match[0][len(_target(match[0])) :], text)


def _blocks(text: str) -> Iterator[Fence | str]:
    prose: list[str] = []
    fence: Fence | None = None
    ticks = ""
    for line in text.split("\n"):
        found = _FENCE.match(line)
        marks = (found[1] or found[3]) if found else ""
        if fence is not None:
            if marks.startswith(ticks) and not line.strip().strip(ticks[0]):
                yield fence
                fence = None
            else:
                fence.lines.append(line)
        elif found:
            yield "\n".join(prose)
            prose = []
            fence, ticks = Fence(found[2] or found[4] or "", []), marks
        else:
            prose.append(line)
    yield fence if fence is not None else "\n".join(prose)


def _prose(text: str, rules: Rules) -> str:
    """Lines outside fences. Headings and what underlines them are for our own words only."""
    text = _spans(text, rules)
    text = _UNDERLINE.sub(lambda match: match[1] + ("\\" + match[2] if match[2] else "* * *"), text)
    return _HEADING.sub(lambda match: match[1] + (f"**{match[2]}**" if match[2] else ""), text)


def _spans(text: str, rules: Rules) -> str:
    """Code spans as they are, all else inert."""
    tables = _DELIMITER_ROW.search(text) is not None  # a bar ends a cell, even within what looks like code
    done: list[str] = []
    start = 0
    for match in _CODE.finditer(text):
        if match["comment"] is not None:
            replacement = " "
        elif match["code"] is not None and not (tables and "|" in match["code"]):
            replacement = broken(match["code"])
        else:
            continue
        done += (_inert(text[start : match.start()], rules), replacement)
        start = match.end()
    return "".join((*done, _inert(text[start:], rules)))


def _inert(text: str, rules: Rules) -> str:
    kept: list[str] = []

    def keep(link: str) -> str:
        kept.append(link)
        return f"\ue000{len(kept) - 1}\ue001"  # private characters: cleaning took them out of all text

    def link(match: re.Match[str]) -> str:
        label, target = match[1], match[2]
        if _allowed(target, rules.host):
            return keep(f"[{_literal(label)}]({target})")
        return f"{label} (link removed)".strip()

    def bare(match: re.Match[str]) -> str:
        target = _target(match[0])
        rest = match[0][len(target) :]
        return (keep(f"<{target}>") if _allowed(target, rules.host) else "(link removed)") + rest

    # Cleaned once more as a reader sees it, before there is any structure that cleaning could break.
    text = rules.clean(_WRITTEN.sub(_as_read, text))
    text = _IMAGE.sub(lambda match: f"{match[1]} (image removed)".strip(), text)
    text = _literal(_BARE.sub(bare, _LINK.sub(link, text)))
    return re.sub("\ue000(\\d+)\ue001", lambda match: kept[int(match[1])], text)


def _target(found: str) -> str:
    """An address without the punctuation of the sentence around it."""
    return found.rstrip(".,;:!?'\"*_)")


def _as_read(match: re.Match[str]) -> str:
    """An escaped or encoded character as a reader sees it, where it could be part of something active."""
    if match[1]:
        return match[1] if match[1] in _PLAIN_ESCAPES else match[0]
    char = html.unescape(match[0])
    return " " if char.isspace() else char


def _literal(text: str) -> str:
    text = quiet(text).replace("&", "&amp;").replace("<", "&lt;")
    text = text.replace("[", "&#91;").replace("]", "&#93;").replace("`", "&#96;")
    return re.sub("~{3,}", lambda match: "&#126;" * len(match[0]), text)


def _allowed(target: str, host: str) -> bool:
    """Only the configured GitHub, exactly, and never to what a link there could do or tell."""
    if not _SAFE_URL.fullmatch(target):
        return False
    parts = urlsplit(target)
    return parts.netloc.lower() == host and not _TELLING.search(parts.path)
