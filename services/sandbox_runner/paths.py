"""Which paths a change may write, and which of them a person should look at twice (pure).

Rules follow git's own ``verify_path``, ``is_ntfs_dotgit`` and ``is_hfs_dotgit``; git's index drops such
paths without a word, so they are refused before git sees them.
"""

import re
from collections.abc import Collection, Iterable

from services.sandbox_runner.repository_settings import matches

# Code points that HFS+ ignores in names (git, utf8.c: next_hfs_char)
_IGNORED = dict.fromkeys(
    [*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF], None
)
_SHORT = re.compile(r"(git|gitmod|gi7eba)~[0-9]+")  # how NTFS abbreviates .git and .gitmodules
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_MAX_PATH, _MAX_PART = 4096, 255

_PROTECTED = re.compile(
    r"""(^|/)\.github/(workflows|actions)/ | ^\.gitlab-ci\.yml$ | ^\.gitlab/ | ^\.circleci/ | ^jenkinsfile
      | ^azure-pipelines\.ya?ml$ | ^bitbucket-pipelines\.yml$ | ^\.travis\.yml$ | ^\.buildkite/
      | ^\.drone\.ya?ml$ | ^\.woodpecker(/|\.ya?ml$) | ^\.teamcity/ | ^\.forgejo/ | ^\.gitea/
      | ^appveyor\.yml$ | ^\.appveyor\.yml$ | ^cloudbuild\.ya?ml$ | ^buildspec\.ya?ml$
      | ^\.millrace\.toml$""",
    re.VERBOSE,
)


def wrong_path(path: bytes) -> str | None:
    """Why this path cannot be part of a change, or None."""
    if not path or path.startswith(b"/"):
        return "is empty or absolute"
    if len(path) > _MAX_PATH:
        return f"is longer than {_MAX_PATH} bytes"
    if _CONTROL.search(path):
        return "contains a control character"
    return next((why for part in path.split(b"/") if (why := _wrong_part(part))), None)


def _wrong_part(part: bytes) -> str | None:
    if part in (b"", b".", b".."):
        return "has an empty part, . or .."
    if len(part) > _MAX_PART:
        return f"has a part longer than {_MAX_PART} bytes"
    for piece in part.split(b"\\"):  # a separator where Windows checks it out
        if piece == b"..":
            return "has a part .."
        if name := _git_name(piece):
            return f"is or could be read as {name}"
    return None


def _git_name(part: bytes) -> str | None:
    """``.git`` or ``.gitmodules`` if some file system takes this part for it."""
    text = part.decode("utf-8", "replace").translate(_IGNORED).casefold()
    text = text.split(":")[0].rstrip(" .")  # NTFS: alternate streams, trailing dots and spaces
    if text in (".git", ".gitmodules"):
        return text
    if _SHORT.fullmatch(text):
        return ".git" if text.startswith("git~") else ".gitmodules"
    return None


def wrong_link(path: bytes, target: bytes) -> str | None:
    """Why a symbolic link at ``path`` cannot be part of a change, or None.

    ``..`` may only lead: then it climbs real directories, and no other link can carry it further out.
    """
    if not target or b"\0" in target or len(target) > _MAX_PATH:
        return "is a link without a usable target"
    if target.startswith(b"/") or b"\\" in target:
        return "is a link out of the repository"
    parts = [part for part in target.split(b"/") if part not in (b"", b".")]
    climbs = 0
    while climbs < len(parts) and parts[climbs] == b"..":
        climbs += 1
    if b".." in parts[climbs:]:
        return "is a link with .. behind a name"
    if climbs > path.count(b"/"):
        return "is a link out of the repository"
    if any(_git_name(part) for part in parts):
        return "is a link into .git"
    return None


_SENSITIVE = re.compile(
    r"""(^|/)(package\.json|package-lock\.json|npm-shrinkwrap\.json|yarn\.lock|pnpm-lock\.yaml|\.npmrc|\.yarnrc(\.yml)?
        |setup\.py|setup\.cfg|pyproject\.toml|pip\.conf|requirements[^/]*\.txt|poetry\.lock|uv\.lock|pipfile(\.lock)?
        |conftest\.py|sitecustomize\.py|usercustomize\.py|[^/]+\.pth|noxfile\.py|tox\.ini
        |(gnu)?makefile|cmakelists\.txt|configure(\.ac)?|build\.rs|cargo\.(toml|lock)|go\.(mod|sum|work)
        |pom\.xml|[^/]+\.gradle(\.kts)?|gradlew(\.bat)?|gradle-wrapper\.(jar|properties)
        |dockerfile[^/]*|containerfile[^/]*|(docker-)?compose[^/]*\.ya?ml|\.pre-commit-config\.yaml|\.envrc|\.env
        |codeowners|agents\.md|claude\.md|\.cursorrules|\.mcp\.json|\.gitattributes|\.gitmodules)$
      | (^|/)\.(devcontainer|vscode|claude|cursor|husky|cargo|mvn|yarn)/ | (^|/)requirements/[^/]+\.txt$
      | ^\.github/""",
    re.VERBOSE,
)


def sensitive(paths: Iterable[bytes]) -> list[str]:
    """Those paths that decide what runs on the machines of people who build, test or open the repository."""
    texts = [path.decode("utf-8", "backslashreplace") for path in paths]
    return sorted(text for text in texts if _SENSITIVE.search(text.casefold()))


def protected(paths: Iterable[bytes], patterns: Collection[str] = ()) -> list[str]:
    """Those paths that tell machines with credentials what to run: workflows and other CI settings.

    Args:
        patterns: globs of further paths that the repository protects (``policy.protected``).
    """
    found = []
    for path in paths:
        text = path.decode("utf-8", "backslashreplace")
        if _PROTECTED.search(text.casefold()) or any(matches(pattern, text) for pattern in patterns):
            found.append(text)
    return sorted(found)
