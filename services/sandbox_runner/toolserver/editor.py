"""The tool ``str_replace_based_edit_tool``, as Anthropic's ``text_editor_20250728`` describes it.

Files are handled as bytes, so that what is not edited stays as it was: encoding, line ends, mode.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAX_FILE = 10 * 1024 * 1024
CHARACTERS = 60_000
_LISTED = 1000
_SCANNED = 20_000
_SNIPPET = 40


class EditError(Exception):
    """The edit was not possible; ``str()`` tells the model what to do instead."""


class Editor:
    """Views and changes files below ``root``, which is an existing absolute directory.

    Args:
        characters: the most that one view shows.
    """

    def __init__(self, root: str, characters: int = CHARACTERS) -> None:
        self._root = os.path.realpath(root)
        self._characters = characters
        self._commands: dict[str, Callable[[str, dict[str, Any]], str]] = {
            "view": self._view,
            "create": self._create,
            "str_replace": self._replace,
            "insert": self._insert,
        }

    def run(self, arguments: dict[str, Any]) -> str:
        """Carry out one command of the tool.

        Raises:
            EditError: the arguments or the file do not allow it; nothing was changed.
        """
        command = self._commands.get(str(arguments.get("command")))
        if command is None:
            raise EditError(
                f"There is no command {arguments.get('command')!r}; use {', '.join(self._commands)}."
            )
        path = self._resolve(_text(arguments, "path"))
        try:
            return command(path, arguments)
        except OSError as error:
            raise EditError(f"{path}: {error.strerror or error}.") from error

    def _resolve(self, name: str) -> str:
        if "\0" in name:
            raise EditError("A path cannot contain a NUL character.")
        try:
            path = os.path.realpath(f"{self._root}/{name}" if not name.startswith("/") else name)
            os.lstat(path)
        except FileNotFoundError:
            pass
        except (OSError, UnicodeEncodeError) as error:
            raise EditError(f"{name}: {getattr(error, 'strerror', '') or error}.") from error
        if not self._holds(path):
            raise EditError(f"{name} is outside {self._root}; this tool only works on the repository there.")
        return path

    def _holds(self, path: str) -> bool:
        return path == self._root or path.startswith(self._root + "/")

    def _view(self, path: str, arguments: dict[str, Any]) -> str:
        if os.path.isdir(path):
            return self._list(path)
        lines = self._read(path).decode("utf-8", "replace").split("\n")
        if lines[-1] == "":
            lines.pop()
        first, last = 1, len(lines)
        if (wanted := arguments.get("view_range")) is not None:
            first, last = _range(wanted, len(lines))
        shown: list[str] = []
        room = min(self._characters, _whole(arguments.get("max_characters"), self._characters))
        for number in range(first, last + 1):
            line = f"{number:6}\t{lines[number - 1]}"
            room -= len(line) + 1
            if room < 0:
                if not shown:
                    shown.append(line[: self._characters])
                shown.append(f"[... cut here; the file has {len(lines)} lines: use view_range for more]")
                break
            shown.append(line)
        return "\n".join(shown) if shown else "[the file is empty]"

    def _list(self, top: str) -> str:
        """Two levels, without hidden entries and without following links."""
        found, scanned = [top], 0
        entries, seen = _entries(top, _SCANNED)
        scanned += seen
        for name, is_directory in entries:
            found.append(f"{top}/{name}{'/' if is_directory else ''}")
            if is_directory and name != "node_modules" and scanned < _SCANNED:
                inner, seen = _entries(f"{top}/{name}", _SCANNED - scanned)
                scanned += seen
                found += [f"{top}/{name}/{n}{'/' if d else ''}" for n, d in inner]
        text = [name.encode("utf-8", "backslashreplace").decode() for name in found[: _LISTED + 1]]
        if len(found) > len(text) or scanned >= _SCANNED:
            more = f"{len(found) - len(text)} more" if scanned < _SCANNED else "many more"
            text.append(f"[... {more}: view a directory below, or use bash]")
        return "\n".join(text)

    def _create(self, path: str, arguments: dict[str, Any]) -> str:
        if os.path.isdir(path):
            raise EditError(f"{path} is a directory.")
        existed = os.path.exists(path)
        data = _text(arguments, "file_text").encode("utf-8", "replace")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self._write(path, data)
        return f"The file {path} was {'overwritten' if existed else 'created'} ({len(data)} bytes)."

    def _replace(self, path: str, arguments: dict[str, Any]) -> str:
        data = self._read(path)
        old = _text(arguments, "old_str").encode("utf-8", "replace")
        new = _text(arguments, "new_str", "").encode("utf-8", "replace")
        if not old:
            raise EditError("old_str is empty; use insert or create.")
        if b"\r\n" in data and b"\r" not in old and data.count(old) == 0:
            old, new = old.replace(b"\n", b"\r\n"), new.replace(b"\n", b"\r\n")
        count = data.count(old)
        if count == 0:
            raise EditError(
                f"old_str was not found in {path}. It must match exactly, white space included:"
                " view the file and try again."
            )
        if count > 1:
            lines = [str(number) for number in _lines_of(data, old)]
            raise EditError(
                f"old_str occurs {count} times in {path} (lines {', '.join(lines)}):"
                " add surrounding lines so that it is unique."
            )
        start = data.index(old)
        changed = data[:start] + new + data[start + len(old) :]
        self._write(path, changed)
        return "The file was changed:\n" + _snippet(changed, start, len(new))

    def _insert(self, path: str, arguments: dict[str, Any]) -> str:
        data = self._read(path)
        line = arguments.get("insert_line")
        lines = data.count(b"\n") + (not data.endswith(b"\n") and data != b"")
        if not isinstance(line, int) or isinstance(line, bool) or not 0 <= line <= lines:
            raise EditError(f"insert_line must be from 0 (the beginning) to {lines} (the end).")
        key = "insert_text" if "insert_text" in arguments else "new_str"
        text = _text(arguments, key).encode("utf-8", "replace")
        end = b"\r\n" if b"\r\n" in data else b"\n"
        if end == b"\r\n" and b"\r" not in text:
            text = text.replace(b"\n", b"\r\n")
        if not text.endswith(b"\n"):
            text += end
        at = 0
        for _ in range(line):
            at = data.find(b"\n", at) + 1 or len(data)
        before = data[:at]
        if before and not before.endswith(b"\n"):
            before += end
        self._write(path, before + text + data[at:])
        return "The text was inserted:\n" + _snippet(before + text, len(before), len(text))

    def _read(self, path: str) -> bytes:
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise EditError(f"{path} does not exist.") from error
        with open(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise EditError(f"{path} is not a regular file.")
            # somebody may have moved a link into the way since the path was resolved
            if not self._holds(os.readlink(f"/proc/self/fd/{handle}")):
                raise EditError(f"{path} leads out of {self._root}.")
            if status.st_size > MAX_FILE:
                raise EditError(f"{path} has {status.st_size} bytes; use bash to look at parts of it.")
            data = file.read(MAX_FILE + 1)
        if b"\0" in data[:8192]:
            raise EditError(f"{path} is a binary file of {len(data)} bytes; use bash to look at it.")
        return data

    def _write(self, path: str, data: bytes) -> None:
        """Replace the content in one step; mode bits stay."""
        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            mode = stat.S_IFREG | 0o644
        if not stat.S_ISREG(mode):
            raise EditError(f"{path} is not a regular file.")
        temporary = f"{os.path.dirname(path)}/.edit-{os.urandom(6).hex()}"
        handle = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            with open(handle, "wb") as file:
                file.write(data)
                os.fchmod(handle, stat.S_IMODE(mode))
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise


def _text(arguments: dict[str, Any], key: str, default: str | None = None) -> str:
    value = arguments.get(key, default)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise EditError(f"The parameter {key} is missing or not a text.")
    return value


def _whole(value: Any, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else default


def _range(wanted: Any, count: int) -> tuple[int, int]:
    if not (isinstance(wanted, list) and len(wanted) == 2 and all(type(n) is int for n in wanted)):
        raise EditError("view_range must be two line numbers, such as [1, 40]; -1 stands for the last line.")
    first, last = wanted
    if last == -1 or last > count:
        last = count
    if not 1 <= first <= max(count, 1) or last < first - 1:
        raise EditError(f"view_range {wanted} does not lie in the file's {count} lines.")
    return first, last


def _entries(directory: str, most: int) -> tuple[list[tuple[str, bool]], int]:
    """Names that are not hidden, sorted, each with whether it is a directory; and how many were looked at."""
    entries: list[tuple[str, bool]] = []
    seen = 0
    with os.scandir(directory) as found:
        for entry in found:
            seen += 1
            if not entry.name.startswith("."):
                entries.append((entry.name, entry.is_dir(follow_symlinks=False)))
            if seen >= most:
                break
    return sorted(entries), seen


def _lines_of(data: bytes, part: bytes) -> list[int]:
    found: list[int] = []
    at = data.find(part)
    while at >= 0 and len(found) < 10:
        found.append(data.count(b"\n", 0, at) + 1)
        at = data.find(part, at + 1)
    return found


def _snippet(data: bytes, start: int, length: int) -> str:
    """The lines from ``start`` on with a few around them; only as much is looked at as is shown."""
    first = start
    for _ in range(4):
        first = data.rfind(b"\n", 0, first)
        if first < 0:
            break
    number = data.count(b"\n", 0, first + 1)
    last, shown = start + length, number
    for _ in range(4):
        last = data.find(b"\n", last) + 1 or len(data) + 1
    lines: list[str] = []
    at = first + 1
    while at < min(last, len(data)) and len(lines) < _SNIPPET:
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        shown += 1
        lines.append(f"{shown:6}\t{data[at : min(end, at + 2000)].decode('utf-8', 'replace')[:500]}")
        at = end + 1
    return "\n".join(lines)
