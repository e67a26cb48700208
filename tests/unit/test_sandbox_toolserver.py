"""The parts of the tool server that need no container."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.sandbox_runner.toolserver.clip import Clip
from services.sandbox_runner.toolserver.editor import EditError, Editor


@given(st.lists(st.binary(max_size=50), max_size=20), st.integers(0, 40), st.integers(0, 40))
def test_a_clip_keeps_both_ends_and_counts_the_rest(parts: list[bytes], head: int, tail: int) -> None:
    clip = Clip(head, tail)
    for part in parts:
        clip.add(part)
    text, omitted = clip.result()
    whole = b"".join(parts)
    if len(whole) <= head + tail:
        assert (text, omitted) == (whole.decode("utf-8", "replace"), 0)
    else:
        assert len(whole) - head - tail <= omitted <= len(whole) - head - tail + 6
        assert f"[... {omitted} bytes omitted ...]" in text


def test_a_clip_does_not_cut_a_character_in_two() -> None:
    clip = Clip(4, 4)
    clip.add("aé€😀é€x".encode() * 3)
    text, _ = clip.result()
    assert "\ufffd" not in text


@pytest.fixture
def editor(tmp_path: Path) -> Editor:
    (tmp_path / "unix.txt").write_bytes(b"one\ntwo\nthree")
    (tmp_path / "dos.txt").write_bytes(b"one\r\ntwo\r\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\nend\n")
    (tmp_path / "tool").write_bytes(b"#!/bin/sh\n")
    (tmp_path / "tool").chmod(0o750)
    return Editor(str(tmp_path), characters=200)


def run(editor: Editor, command: str, path: str, **more: Any) -> str:
    return editor.run({"command": command, "path": path, **more})


def test_what_is_not_edited_keeps_its_bytes(editor: Editor, tmp_path: Path) -> None:
    run(editor, "str_replace", "dos.txt", old_str="one\ntwo", new_str="1\n2")
    run(editor, "insert", "dos.txt", insert_line=1, insert_text="a\nb\n")
    run(editor, "str_replace", "latin.txt", old_str="end", new_str="END")
    run(editor, "insert", "unix.txt", insert_line=3, insert_text="four")
    run(editor, "create", "tool", file_text="#!/bin/true\n")
    assert (tmp_path / "dos.txt").read_bytes() == b"1\r\na\r\nb\r\n2\r\n"
    assert (tmp_path / "latin.txt").read_bytes() == b"caf\xe9\nEND\n"
    assert (tmp_path / "unix.txt").read_bytes() == b"one\ntwo\nthree\nfour\n"
    assert (tmp_path / "tool").stat().st_mode & 0o777 == 0o750
    assert not list(tmp_path.glob(".edit-*"))


def test_views_are_numbered_ranged_and_cut(editor: Editor, tmp_path: Path) -> None:
    assert run(editor, "view", "unix.txt", view_range=[2, -1]) == "     2\ttwo\n     3\tthree"
    (tmp_path / "long.txt").write_text("line\n" * 500)
    (tmp_path / "wide.txt").write_text("x" * 10_000)
    assert "the file has 500 lines" in run(editor, "view", "long.txt")
    assert len(run(editor, "view", "wide.txt")) < 400
    (tmp_path / "empty").touch()
    assert run(editor, "view", "empty") == "[the file is empty]"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"command": "view", "path": "../x"}, "outside"),
        ({"command": "view", "path": "/etc/passwd"}, "outside"),
        ({"command": "view", "path": "a\0b"}, "NUL"),
        ({"command": "view", "path": 3}, "not a text"),
        ({"command": "view", "path": "x" * 5000}, "too long"),
        ({"command": "view", "path": "unix.txt", "view_range": [0, 2]}, "does not lie"),
        ({"command": "view", "path": "unix.txt", "view_range": [3, 1]}, "does not lie"),
        ({"command": "view", "path": "unix.txt", "view_range": "1-2"}, "two line numbers"),
        ({"command": "insert", "path": "unix.txt", "insert_line": 4, "insert_text": "x"}, "from 0"),
        ({"command": "insert", "path": "unix.txt", "insert_line": True, "insert_text": "x"}, "from 0"),
        ({"command": "str_replace", "path": "unix.txt", "old_str": "", "new_str": "x"}, "empty"),
        ({"command": "create", "path": "unix.txt/x", "file_text": ""}, "File exists|Not a directory"),
        ({"command": "create", "path": ".", "file_text": ""}, "directory"),
        ({"command": "undo_edit", "path": "unix.txt"}, "There is no command"),
        ({}, "There is no command"),
    ],
)
def test_what_cannot_be_done_is_explained(editor: Editor, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(EditError, match=words):
        editor.run(arguments)


def test_a_link_is_followed_only_inside(editor: Editor, tmp_path: Path) -> None:
    (tmp_path / "in").symlink_to("unix.txt")
    (tmp_path / "out").symlink_to("/etc/hostname")
    (tmp_path / "loop").symlink_to("loop")
    run(editor, "str_replace", "in", old_str="one", new_str="1")
    assert (tmp_path / "in").is_symlink()
    assert (tmp_path / "unix.txt").read_text().startswith("1\n")
    for name in ("out", "loop"):
        with pytest.raises(EditError):
            run(editor, "view", name)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(EditError, match="not a regular file"):
        run(editor, "create", "pipe", file_text="x")
