"""The master key's file: created once, refused when anything about it is unusual."""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from services.kit.errors import Misconfigured
from services.vault.keyfile import KEY_BYTES, create_key, find_keys, load_key


def write(file: Path, content: bytes, mode: int = 0o600) -> None:
    file.write_bytes(content)
    file.chmod(mode)


def test_a_created_key_is_private_and_comes_back(tmp_path: Path) -> None:
    created = create_key(tmp_path / "vault")
    file = tmp_path / "vault" / "k1.key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.stat().st_size == KEY_BYTES
    assert (tmp_path / "vault").stat().st_mode & 0o777 == 0o700
    assert load_key(tmp_path / "vault", "k1").check_value == created.check_value
    assert [each.name for each in (tmp_path / "vault").iterdir()] == ["k1.key"]


def test_creating_again_keeps_the_key(tmp_path: Path) -> None:
    assert create_key(tmp_path).check_value == create_key(tmp_path).check_value


def _create(directory: Path) -> bytes:
    return create_key(directory).check_value


def test_processes_that_create_at_once_end_up_with_one_key(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(8) as pool:
        assert len(set(pool.map(_create, [tmp_path] * 32))) == 1


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o640, 0o604, 0o700])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    write(tmp_path / "k1.key", os.urandom(KEY_BYTES), mode)
    with pytest.raises(Misconfigured, match="chmod 600"):
        load_key(tmp_path, "k1")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(os.urandom(16), id="16 bytes"),
        pytest.param(os.urandom(31), id="31 bytes"),
        pytest.param(os.urandom(33), id="33 bytes"),
        pytest.param(bytes(32), id="zeros"),
        pytest.param(b"\xff" * 32, id="one byte repeated"),
        pytest.param(b"\x80\x01" * 16, id="two bytes repeated"),
        pytest.param(b"correct horse battery staple 123", id="a sentence"),
        pytest.param(b"0123456789abcdef0123456789abcde\n", id="hex"),
    ],
)
def test_what_is_not_a_random_key_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "k1.key", content)
    with pytest.raises(Misconfigured):
        load_key(tmp_path, "k1")
    with pytest.raises(Misconfigured):
        create_key(tmp_path)
    assert (tmp_path / "k1.key").read_bytes() == content


def a_link(file: Path) -> None:
    write(file.with_name("target"), os.urandom(KEY_BYTES))
    file.symlink_to("target")


def a_dangling_link(file: Path) -> None:
    file.symlink_to("nowhere")


@pytest.mark.parametrize("make", [a_link, a_dangling_link, os.mkfifo, Path.mkdir])
def test_what_is_not_a_plain_file_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "k1.key")
    with pytest.raises(Misconfigured, match="plain file"):
        load_key(tmp_path, "k1")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_of_another_user_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "k1.key", os.urandom(KEY_BYTES))
    os.chown(tmp_path / "k1.key", 12345, 12345)
    with pytest.raises(Misconfigured, match="another user"):
        load_key(tmp_path, "k1")


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"k1\.key is missing"):
        load_key(tmp_path, "k1")


def test_keys_are_found_in_their_order(tmp_path: Path) -> None:
    for name in ("k10.key", "k2.key", "kx.key", ".k3.tmp", "anchor.json"):
        write(tmp_path / name, b"")
    assert find_keys(tmp_path) == ["k2", "k10"]
    assert find_keys(tmp_path / "absent") == []
