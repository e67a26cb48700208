"""Text by the model or by strangers, made safe to publish. Pure.

What leaves must not notify people, close other issues, fetch anything from a reader's browser, hide
characters, imitate our own markers, or carry something that looks like a credential.
"""

import re
import unicodedata
from urllib.parse import urlsplit

from services.kit.logs import redact

MAX_COMMENT = 60_000
"""Characters; GitHub refuses comments and bodies over 65,536."""

_CODE = re.compile(r"(```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]+`)", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?(?:--!?>|\Z)", re.DOTALL)
_REFERENCE = re.compile(r"^[ ]{0,3}\[[^\]\n]+\]:[^\n]*$", re.MULTILINE)
_IMAGE = re.compile(r"!\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])")
_LINK = re.compile(r"\[([^\]]*)\]\(\s*<?([^)\s>]+)>?[^)]*\)")
_BARE = re.compile(
    r"(?i)\b(?:https?:|ftp:|javascript:|data:|mailto:)[^\s<>`]+|(?<![:\w/])//[\w.-]+\.[a-z]{2,}\S*|\bwww\.[^\s<>`]+"
)
_ENTITY_AT = re.compile(r"(?i)&(?:#0*64|#x0*40|commat);")
_MENTION = re.compile(r"@(?=[A-Za-z0-9])")
_CLOSING = re.compile(
    r"(?i)\b(close[sd]?|fix(?:e[sd])?|resolve[sd]?)(\s*:?\s+)(?=(?:[\w.-]+/[\w.-]+)?#\d+|https?://|GH-\d+)"
)
_SKIP_CI = re.compile(r"(?i)\[(skip ci|ci skip|no ci|skip actions|actions skip)\]")
_TRAILER = re.compile(
    r"(?im)^(co-authored-by|signed-off-by|reviewed-by|acked-by|millrace-[a-z]+|skip-checks):.*$"
)
_JOINER = "\u2060"


def markdown(text: str, *, web: str, limit: int = MAX_COMMENT) -> str:
    """``text`` as Markdown that is inert but readable.

    Args:
        text: what somebody else wrote.
        web: the URL of the configured GitHub; links there stay links.
        limit: characters; longer text is cut with a note.
    """
    cleaned = _COMMENT.sub("", _visible(redact(text)))
    pieces = _CODE.split(cleaned)
    host = urlsplit(web).netloc.lower()
    safe = "".join(piece if index % 2 else _prose(piece, host) for index, piece in enumerate(pieces))
    # A fence left open would swallow our own words below it.
    for fence in ("```", "~~~"):
        if safe.count(fence) % 2:
            safe += f"\n{fence}"
    return _cut(safe.strip(), limit)


def line(text: str, *, limit: int = 200) -> str:
    """``text`` as one plain line: a title."""
    flat = " ".join(_visible(redact(text)).split())
    flat = _SKIP_CI.sub("", _CLOSING.sub(r"\1\2" + _JOINER, flat))
    flat = _MENTION.sub("@" + _JOINER, flat).replace("#", "#" + _JOINER).strip()
    return flat if len(flat) <= limit else flat[: limit - 1].rstrip() + "…"


def commit_text(text: str, *, limit: int = 4000) -> str:
    """``text`` as part of a commit message: no trailers, no keywords, no notifications."""
    cleaned = _TRAILER.sub("", _COMMENT.sub("", _visible(redact(text))))
    cleaned = _SKIP_CI.sub("", _CLOSING.sub(r"\1\2" + _JOINER, cleaned))
    cleaned = _BARE.sub("(link removed)", _ENTITY_AT.sub("@", cleaned))
    return _cut(_MENTION.sub("@" + _JOINER, cleaned).strip(), limit)


def verbatim(text: str, *, limit: int = 4000) -> str:
    """``text`` inside a fence that it cannot close; the end of long output is kept."""
    cleaned = _visible(redact(text)).strip("\n")
    if len(cleaned) > limit:
        cleaned = "[…]\n" + cleaned[-limit:]
    longest = max((len(run) for run in re.findall(r"`+", cleaned)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{cleaned}\n{fence}"


def code(text: str, *, limit: int = 300) -> str:
    """``text`` as an inline code span."""
    flat = " ".join(_visible(redact(text)).split())[:limit].replace("`", "'").replace("|", "\\|")
    return f"`{flat}`" if flat else "(none)"


def _prose(text: str, host: str) -> str:
    text = _ENTITY_AT.sub("@", text)
    text = _REFERENCE.sub("", text)
    text = _IMAGE.sub(lambda match: f"{match[1]} (image removed)".strip(), text)
    text = _LINK.sub(lambda match: _link(match[1], match[2], host), text)
    text = _BARE.sub(lambda match: match[0] if _allowed(match[0], host) else "(link removed)", text)
    text = text.replace("<", "&lt;")
    text = _CLOSING.sub(r"\1\2" + _JOINER, text)
    text = re.sub(r"(?i)\bGH-(\d)", r"GH-" + _JOINER + r"\1", text)
    text = re.sub(r"((?:[\w.-]+/[\w.-]+)?)#(\d)", r"\1#" + _JOINER + r"\2", text)
    return _MENTION.sub("@" + _JOINER, text)


def _link(label: str, target: str, host: str) -> str:
    return f"[{label}]({target})" if _allowed(target, host) else f"{label} (link removed)".strip()


def _allowed(target: str, host: str) -> bool:
    """Only the configured GitHub, exactly, and never to what a link there could do or tell."""
    try:
        parts = urlsplit(target)
    except ValueError:
        return False
    exact = parts.scheme in ("http", "https") and parts.netloc.lower() == host
    return exact and not parts.query and not re.search(r"(?i)/(?:issues|pull)/\d+", parts.path)


def _visible(text: str) -> str:
    """Without control characters, bidirectional overrides and tag characters; joiners in words stay."""
    hidden = {"\u200b", "\ufeff", "\u2060", "\u180e"}
    return "".join(
        char
        for char in _ESCAPES.sub("", text.replace("\r\n", "\n"))
        if char in "\n\t"
        or (
            unicodedata.category(char) not in ("Cc", "Cs", "Co")
            and char not in hidden
            and not 0x202A <= ord(char) <= 0x202E
            and not 0x2066 <= ord(char) <= 0x2069
        )
    )


_ESCAPES = re.compile(r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b\[[0-?]*[ -/]*[@-~]|\x1b.")


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[:limit].rstrip() + "\n\n[cut here: the text is longer]"
