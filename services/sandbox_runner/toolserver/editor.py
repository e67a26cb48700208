"""The tool ``str_replace_based_edit_tool``, as Anthropic's ``text_editor_20250728`` describes it.

Files are handled as bytes, so that what is not edited stays as it was: encoding, line ends, mode.
"""

import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

MAX_FILE = 10 * 1024 * 1024
_LISTED = 1000


class EditError(Exception):
    """The edit was not possible; ``str()`` tells the model what to do instead."""


class Editor:
    """Views and changes files below ``root``, which is an existing absolute directory.

    Args:
        characters: the most that one view shows.
    """

    def __init__(self, root: Path, characters: int = 60_000) -> None:
        self._root = root.resolve()
        self._characters = characters

    def run(self, arguments: dict[str, Any]) -> str:
        """Carry out one command of the tool.

        Raises:
            EditError: the arguments or the file do not allow it; nothing was changed.
        """
        commands: dict[str, Callable[[Path, dict[str, Any]], str]] = {
            "view": self._view,
            "create": self._create,
            "str_replace": self._replace,
            "insert": self._insert,
        }
        command = commands.get(str(arguments.get("command")))
        if command is None:
            raise EditError(f"There is no command {arguments.get('command')!r}; use {', '.join(commands)}.")
        path = self._resolve(_text(arguments, "path"))
        try:
            return command(path, arguments)
        except OSError as error:
            raise EditError(f"{path}: {error.strerror or error}.") from error

    def _resolve(self, name: str) -> Path:
        if "\0" in name:
            raise EditError("A path cannot contain a NUL character.")
        try:
            path = Path(os.path.realpath(self._root / name))
        except OSError as error:
            raise EditError(f"{name}: {error.strerror or error}.") from error
        if path != self._root and self._root not in path.parents:
            raise EditError(f"{name} is outside {self._root}; this tool only works on the repository there.")
        return path

    def _view(self, path: Path, arguments: dict[str, Any]) -> str:
        if path.is_dir():
            return self._list(path)
        lines = _read(path).decode("utf-8", "replace").split("\n")
        if lines[-1] == "":
            lines.pop()
        first, last = 1, len(lines)
        if (wanted := arguments.get("view_range")) is not None:
            first, last = _range(wanted, len(lines))
        shown: list[str] = []
        room = min(self._characters, int(arguments.get("max_characters") or self._characters))
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

    def _list(self, top: Path) -> str:
        """Two levels, without hidden entries and without following links."""
        found: list[str] = [str(top)]
        for entry in _entries(top):
            found.append(str(top / entry.name) + ("/" if entry.is_dir(follow_symlinks=False) else ""))
            if entry.is_dir(follow_symlinks=False) and entry.name != "node_modules":
                inner = _entries(Path(entry.path))
                found += [i.path + ("/" if i.is_dir(follow_symlinks=False) else "") for i in inner]
            if len(found) > _LISTED:
                return "\n".join([*found[:_LISTED], "[... more entries; view a directory below]"])
        return "\n".join(found)

    def _create(self, path: Path, arguments: dict[str, Any]) -> str:
        if path.is_dir():
            raise EditError(f"{path} is a directory.")
        existed = path.exists()
        data = _text(arguments, "file_text").encode("utf-8", "replace")
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, data)
        return f"The file {path} was {'overwritten' if existed else 'created'} ({len(data)} bytes)."

    def _replace(self, path: Path, arguments: dict[str, Any]) -> str:
        data = _read(path)
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
            lines = [str(number) for number in _lines_of(data, old)[:10]]
            raise EditError(
                f"old_str occurs {count} times in {path} (lines {', '.join(lines)}):"
                " add surrounding lines so that it is unique."
            )
        start = data.index(old)
        changed = data[:start] + new + data[start + len(old) :]
        _write(path, changed)
        return "The file was changed:\n" + _snippet(changed, start, len(new))

    def _insert(self, path: Path, arguments: dict[str, Any]) -> str:
        data = _read(path)
        line = arguments.get("insert_line")
        lines = data.splitlines(keepends=True) if b"\r" not in data else data.split(b"\n")
        if b"\r" in data:  # only line feeds count as line ends, as in the view
            lines = [part + b"\n" for part in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
        if not isinstance(line, int) or isinstance(line, bool) or not 0 <= line <= len(lines):
            raise EditError(f"insert_line must be from 0 (the beginning) to {len(lines)} (the end).")
        key = "insert_text" if "insert_text" in arguments else "new_str"
        text = _text(arguments, key).encode("utf-8", "replace")
        end = b"\r\n" if b"\r\n" in data else b"\n"
        if end == b"\r\n" and b"\r" not in text:
            text = text.replace(b"\n", b"\r\n")
        if not text.endswith(b"\n"):
            text += end
        before = b"".join(lines[:line])
        if before and not before.endswith(b"\n"):
            before += end
        _write(path, before + text + b"".join(lines[line:]))
        return "The text was inserted:\n" + _snippet(before + text, len(before), len(text))


def _text(arguments: dict[str, Any], key: str, default: str | None = None) -> str:
    value = arguments.get(key, default)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise EditError(f"The parameter {key} is missing or not a text.")
    return value


def _range(wanted: Any, count: int) -> tuple[int, int]:
    if not (isinstance(wanted, list) and len(wanted) == 2 and all(type(n) is int for n in wanted)):
        raise EditError("view_range must be two line numbers, such as [1, 40]; -1 stands for the last line.")
    first, last = wanted
    if last == -1 or last > count:
        last = count
    if not 1 <= first <= max(count, 1) or last < first - 1:
        raise EditError(f"view_range {wanted} does not lie in the file's {count} lines.")
    return first, last


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    with os.scandir(directory) as found:
        return sorted((e for e in found if not e.name.startswith(".")), key=lambda entry: entry.name)


def _read(path: Path) -> bytes:
    if not path.exists():
        raise EditError(f"{path} does not exist.")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise EditError(f"{path} is not a regular file.")
    if status.st_size > MAX_FILE:
        raise EditError(f"{path} has {status.st_size} bytes; use bash to look at parts of it.")
    data = path.read_bytes()
    if b"\0" in data[:8192]:
        raise EditError(f"{path} is a binary file of {len(data)} bytes; use bash to look at it.")
    return data


def _write(path: Path, data: bytes) -> None:
    """Replace the content in one step; mode bits stay."""
    if path.exists() and not path.is_file():
        raise EditError(f"{path} is not a regular file.")
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".edit-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        if path.exists():
            shutil.copymode(path, temporary)
        else:
            Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _lines_of(data: bytes, part: bytes) -> list[int]:
    found, at = [], data.find(part)
    while at >= 0:
        found.append(data.count(b"\n", 0, at) + 1)
        at = data.find(part, at + 1)
    return found


def _snippet(data: bytes, start: int, length: int) -> str:
    lines = data.decode("utf-8", "replace").split("\n")
    first = max(data.count(b"\n", 0, start) - 3, 0)
    last = min(data.count(b"\n", 0, start + length) + 4, first + 40, len(lines))
    return "\n".join(f"{number + 1:6}\t{lines[number][:500]}" for number in range(first, last))
