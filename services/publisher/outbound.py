"""Text by the model or by strangers, made safe to publish. Pure.

What leaves must not notify people, close other issues, fetch anything from a reader's browser, hide
characters, imitate our own markers, or carry something that looks like a credential. Each function is for
one place: ``markdown`` begins a line of its own, ``sentence`` and ``code`` stand within one, ``line`` is a
title, ``commit_text`` a message of git, ``verbatim`` a block.
"""

import html
import re
from collections.abc import Callable
from urllib.parse import urlsplit

from services.kit.logs import redact
from services.publisher.inert import Rules, broken, fenced, inline, quiet, render, without_links
from services.publisher.visible import visible

MAX_COMMENT = 60_000
"""Characters; GitHub refuses comments and bodies over 65,536."""

_CUT = "\n\n(cut here: the text is longer)"
_COMMENT = re.compile(r"<!--.*?(?:--!?>|\Z)", re.DOTALL)
_SKIP = re.compile(
    r"(?i)\[((?:skip|no)[\s_-]+(?:ci|actions|checks?)|(?:ci|actions)[\s_-]+skip)\]|\*\*\*NO_CI\*\*\*"
)
_TRAILER = re.compile(
    r"(?im)^[ \t>]*(?:[a-z]+(?:-[a-z]+)*-by|on-behalf-of|cc|skip-checks|millrace-[a-z-]+)[ \t]*:[^\n]*$"
)


def markdown(text: str, *, web: str, limit: int = MAX_COMMENT) -> str:
    """``text`` as Markdown that is inert but readable; it must begin a line.

    Args:
        text: what somebody else wrote.
        web: the URL of the configured GitHub; links there stay links.
        limit: characters; longer text is cut with a note.
    """
    rules = _rules(web)
    return _fitted(_TRAILER.sub("", _plain(text)), limit, _CUT, lambda source: render(source, rules))


def sentence(text: str, *, web: str, limit: int = 500) -> str:
    """``text`` as inert Markdown within a line of ours."""
    rules = _rules(web)
    return _fitted(_flat(text), limit, "…", lambda source: inline(source, rules))


def line(text: str, *, limit: int = 200) -> str:
    """``text`` as one plain line: a title."""
    return _short(quiet(without_links(_flat(text))), limit)


def commit_text(text: str, *, limit: int = 4000) -> str:
    """``text`` as part of a commit message: no trailers, no references, no notifications, no links."""
    plain = broken(_COMMENT.sub(" ", _plain(text)))
    cleaned = quiet(without_links(_TRAILER.sub("", plain))).strip()
    return cleaned if len(cleaned) <= limit else cleaned[: limit - len(_CUT)].rstrip() + _CUT


def verbatim(text: str, *, limit: int = 4000) -> str:
    """``text`` as a block of code that it cannot end; the end of long output is kept."""
    cleaned = _plain(text).strip("\n")
    if len(cleaned) > limit:
        cleaned = "[…]\n" + cleaned[-limit:]
    return fenced(cleaned.split("\n"), "text")


def code(text: str, *, limit: int = 300) -> str:
    """``text`` as a code span."""
    flat = broken(_short(_flat(text), limit)).replace("`", "'")
    return f"`{flat}`" if flat else "(none)"


def markup(text: str, *, limit: int = 300) -> str:
    """``text`` within HTML of ours."""
    return f"<code>{html.escape(quiet(_short(_flat(text), limit)), quote=False)}</code>"


def _rules(web: str) -> Rules:
    return Rules(urlsplit(web).netloc.lower(), _plain)


def _plain(text: str) -> str:
    """Text as a reader sees it, without credentials and without words that steer continuous integration."""
    return _SKIP.sub(lambda match: f"({match[1] or 'no ci'})", redact(visible(text)))


def _flat(text: str) -> str:
    return " ".join(_plain(text).split())


def _fitted(source: str, limit: int, cut: str, made_of: Callable[[str], str]) -> str:
    """What is made of the text, or of as much of it as keeps that within the limit."""
    safe = made_of(source)
    if len(safe) <= limit:
        return safe
    while len(safe) > limit - len(cut):
        source = source[: min(len(source) - 1, len(source) * (limit - len(cut)) // len(safe))]
        safe = made_of(source)
    return safe + cut


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
