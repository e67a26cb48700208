"""Copies of repositories go by size and age, the least used first, and never while somebody needs them."""

import os
import time
from pathlib import Path

import pytest

from services.sandbox_runner.mirror_bounds import Bounds, Lease, evict, forget_if_unused, mark_used, try_lock

NOW = time.time()


@pytest.fixture
def mirrors(tmp_path: Path) -> Path:
    """Three copies of 1,000 bytes, used 3, 2 and 1 hours ago."""
    for number in (1, 2, 3):
        git_dir = tmp_path / f"{number}.git"
        git_dir.mkdir()
        (git_dir / "pack").write_bytes(b"x" * 1000)
        mark_used(git_dir)
        used = NOW - (4 - number) * 3600
        os.utime(git_dir.with_suffix(".use"), (used, used))
    return tmp_path


def left(mirrors: Path) -> list[str]:
    return sorted(path.name for path in mirrors.glob("*.git"))


def test_within_bounds_everything_stays(mirrors: Path) -> None:
    assert evict(mirrors, Bounds(size=3000), NOW) == []
    assert len(left(mirrors)) == 3


def test_what_was_not_used_for_longest_goes_first(mirrors: Path) -> None:
    assert evict(mirrors, Bounds(size=1500), NOW) == [1, 2]
    assert left(mirrors) == ["3.git"]
    assert not list(mirrors.glob("*.gone"))


def test_age_alone_is_enough(mirrors: Path) -> None:
    assert evict(mirrors, Bounds(age=1.5 * 3600), NOW) == [1, 2]


def test_what_a_sandbox_needs_stays_and_counts_as_used(mirrors: Path) -> None:
    lease = Lease(mirrors / "1.git")
    assert evict(mirrors, Bounds(size=0, age=1), NOW) == [2, 3]
    forget_if_unused(mirrors / "1.git")
    assert left(mirrors) == ["1.git"]
    lease.close()
    lease.close()
    assert evict(mirrors, Bounds(size=0), time.time()) == []  # it was used just now
    assert evict(mirrors, Bounds(size=0), time.time() + 3600) == [1]


def test_what_somebody_reads_now_stays(mirrors: Path) -> None:
    with try_lock(mirrors / "1.lock") as ours:
        assert ours
        assert evict(mirrors, Bounds(size=0), NOW) == [2, 3]


def test_a_removal_that_was_cut_short_leaves_no_half_repository(mirrors: Path) -> None:
    (mirrors / "1.git").rename(mirrors / "1.5.gone")
    assert evict(mirrors, Bounds(size=10_000), NOW) == []
    assert left(mirrors) == ["2.git", "3.git"]
