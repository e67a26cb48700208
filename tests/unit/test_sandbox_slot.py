"""A runner's name: its own among all on the machine, the same after a restart."""

from pathlib import Path

from services.sandbox_runner.slot import living, slot


def test_two_runners_of_one_home_have_two_names(tmp_path: Path) -> None:
    with slot(tmp_path / "runners") as first, slot(tmp_path / "runners") as second:
        assert first != second


def test_a_restarted_runner_has_its_old_name(tmp_path: Path) -> None:
    with slot(tmp_path / "runners") as before:
        pass
    with slot(tmp_path / "runners") as after:
        assert after == before


def test_two_homes_on_one_machine_have_two_names(tmp_path: Path) -> None:
    with slot(tmp_path / "one" / "runners") as one, slot(tmp_path / "other" / "runners") as other:
        assert one != other


def test_a_home_reached_by_another_path_is_the_same_home(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with slot(tmp_path / "real" / "runners") as before:
        pass
    with slot(tmp_path / "link" / "runners") as after:
        assert after == before


def test_the_living_are_told_from_the_dead(tmp_path: Path) -> None:
    with slot(tmp_path / "runners") as first:
        with slot(tmp_path / "runners") as second:
            assert living(tmp_path / "runners") == {first, second}
        assert living(tmp_path / "runners") == {first}
        with slot(tmp_path / "runners") as again:
            assert again == second
    assert living(tmp_path / "runners") == set()
