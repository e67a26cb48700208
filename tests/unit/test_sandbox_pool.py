"""How many containers wait, and how much memory that may take."""

from pathlib import Path

from services.sandbox_runner.memory import Memory, read_memory
from services.sandbox_runner.pool import LATELY, targets
from services.sandbox_runner.profile import Shape
from services.sandbox_runner.sandbox import MIB

PLAIN, OTHER = Shape(image="plain"), Shape(image="other")
NOW = 1000.0


def test_without_demand_the_floor_waits() -> None:
    assert targets([], NOW, {PLAIN: 2}, 8) == {PLAIN: 2}
    assert targets([], NOW, {PLAIN: 0}, 8) == {PLAIN: 0}


def test_as_many_wait_as_were_taken_lately() -> None:
    takes = [(NOW - LATELY - 1, PLAIN), *[(NOW - age, PLAIN) for age in (90, 60, 30, 2, 1)]]
    assert targets(takes, NOW, {PLAIN: 2}, 8) == {PLAIN: 5}
    assert targets(takes, NOW + LATELY, {PLAIN: 2}, 8) == {PLAIN: 2}


def test_there_is_an_upper_bound_and_the_newest_demand_counts_first() -> None:
    takes = [*[(NOW - 50, PLAIN)] * 20, *[(NOW - 5, OTHER)] * 3]
    assert targets(takes, NOW, {PLAIN: 1}, 6) == {PLAIN: 3, OTHER: 3}
    assert targets(takes, NOW, {PLAIN: 9}, 6) == {PLAIN: 6}


def test_memory_is_read_with_and_without_pressure_information(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:       8000 kB\nMemAvailable:   2000 kB\n")
    assert read_memory(tmp_path) == Memory(available=2000 * 1024, total=8000 * 1024)
    (tmp_path / "pressure").mkdir()
    (tmp_path / "pressure/memory").write_text(
        "some avg10=35.10 avg60=1 avg300=0 total=1\nfull avg10=2.00 avg60=0 avg300=0 total=1\n"
    )
    assert read_memory(tmp_path).stalled == 35.1
    assert read_memory(tmp_path / "nothing").enough_for_run(1 << 40)
    assert read_memory().total > 0


def test_runs_and_warm_containers_stop_before_the_machine_suffers() -> None:
    total = 8192 * MIB
    assert Memory(available=2048 * MIB, total=total).enough_for_run(2048 * MIB)
    assert not Memory(available=1000 * MIB, total=total).enough_for_run(2048 * MIB)
    assert not Memory(available=total, total=total, stalled=30).enough_for_run(1)
    assert Memory(available=1100 * MIB, total=total).enough_to_wait()
    assert not Memory(available=1000 * MIB, total=total).enough_to_wait()
    assert not Memory(available=total, total=total, stalled=15).enough_to_wait()
