"""The pages for browsers; plain for now."""

from html import escape

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 42rem; margin: 4rem auto; padding: 0 1rem; }
code { font-size: .95em; }
"""


def front(version: str) -> str:
    """What this is and where to go."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Millrace</title>
<style>{STYLE}</style>
</head>
<body>
<h1>Millrace</h1>
<p>Turns GitHub issues into pull requests. Version {escape(version)} is running.</p>
<p>Open an issue in a repository where its App is installed, or comment <code>/millrace</code> on one.</p>
<ul>
<li><code>millrace issues</code> lists what it works on.</li>
<li><code>millrace history OWNER/REPO#NUMBER --follow</code> shows an issue as it happens.</li>
<li><a href="/ready">/ready</a> says whether everything it needs is there.</li>
</ul>
</body>
</html>
"""
