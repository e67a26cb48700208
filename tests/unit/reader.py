"""A page as a reader's browser gets it: Markdown through a parser that is not ours, and what is active."""

from html.parser import HTMLParser
from urllib.parse import urlsplit

from markdown_it import MarkdownIt

_PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
_HARMLESS = frozenset(
    "p em strong code pre ul ol li blockquote hr br table thead tbody tr th td s".split()  # noqa: SIM905
)
_EMPTY = frozenset({"hr", "br", "img", "input"})


class Page(HTMLParser):
    """What of a text is active: links, tags and headings, and its words outside code.

    Args:
        markdown: the text.
    """

    def __init__(self, markdown: str) -> None:
        super().__init__(convert_charrefs=True)
        self.links: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        self._open: list[str] = []
        self.html = _PARSER.render(markdown)
        self.feed(self.html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A tag begins."""
        if tag == "a":
            self.links.append(dict(attrs).get("href") or "")
        elif tag not in _HARMLESS:
            self.tags.append(tag)
        if tag not in _EMPTY:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """A tag ends, and what was left open in it."""
        while tag in self._open and self._open.pop() != tag:
            pass

    def handle_comment(self, data: str) -> None:
        """A comment hides words."""
        self.tags.append(f"!--{data}")

    def handle_decl(self, decl: str) -> None:
        """So does a declaration."""
        self.tags.append(f"!{decl}")

    def handle_pi(self, data: str) -> None:
        """So does an instruction."""
        self.tags.append(f"?{data}")

    def handle_data(self, data: str) -> None:
        """Words; those in code and in links notify and link nobody."""
        self.words += "\n" if {"code", "pre", "a"} & set(self._open) else data

    @property
    def hosts(self) -> set[str]:
        """Where its links lead."""
        return {urlsplit(link).netloc for link in self.links}
