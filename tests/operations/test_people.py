"""Who is meant by a request to forget: ids as they stand, and as a log's reader could have stored them."""

from __future__ import annotations

from pathlib import Path

import pytest

from metarec_spark.errors import ConfigError
from metarec_spark.operations.people import people


def named(given: list[str], file: Path | None = None) -> dict[str, tuple[str, ...]]:
    return {person.where: person.readings for person in people(given, file)}


def test_an_id_is_taken_as_it_stands_first(tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_bytes("\ufeffa\r\n b \n\nc\u2028d\n".encode())
    assert named(["x", " y"], file) == {
        **{"--user 1": ("x",), "--user 2": (" y", "y")},
        **{"line 1": ("a",), "line 2": (" b ", "b"), "line 4": ("c\u2028d",)},
    }
    assert list(named([], file)) == ["line 1", "line 2", "line 4"]


@pytest.mark.parametrize(
    ("line", "readings"),
    [
        ("a,b", ("a,b",)),
        ('"a,b"', ('"a,b"', "a,b")),
        ('"27"" monitor"', ('"27"" monitor"', '27" monitor')),
        ("101.0", ("101.0", "101")),
        ("007", ("007",)),
        ("1.50", ("1.50",)),
        ('O"Brien', ('O"Brien',)),
        ('"a","b"', ('"a","b"',)),
    ],
)
def test_a_line_is_read_as_it_stands_without_its_quotes_and_as_a_whole_number(
    tmp_path: Path, line: str, readings: tuple[str, ...]
) -> None:
    (tmp_path / "ids").write_text(f"{line}\n")
    assert named([], tmp_path / "ids") == {"line 1": readings}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_csv_is_known_by_its_column_user_id(tmp_path: Path, delimiter: str) -> None:
    rows = [["name", ' "User_ID"'.strip()], ['"two\nlines"', "u1"], ["x", '" u2"'], ["y", f'"a{delimiter}b"']]
    (tmp_path / "ids").write_text("\r\n".join(delimiter.join(row) for row in rows) + "\r\n")
    assert named([], tmp_path / "ids") == {"line 3": ("u1",), "line 4": (" u2", "u2"), "line 5": (f"a{delimiter}b",)}


def test_a_header_alone_is_one_too(tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("user_id\nu1\n")
    assert named([], tmp_path / "ids") == {"line 2": ("u1",)}


def test_ids_that_are_none_are_refused_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nobody is named; give --user ID"):
        people([], None)
    with pytest.raises(ConfigError, match="--user 2: the user id is blank or not UTF-8"):
        people(["a", "  "], None)
    (tmp_path / "row").write_text("name,user_id\nx\n")
    with pytest.raises(ConfigError, match="line 2: the user id is blank"):
        people([], tmp_path / "row")
    with pytest.raises(ConfigError, match="--user 1: the user id is blank or not UTF-8") as error:
        people(["secret\udcff"], None)
    assert "secret" not in str(error.value)
    with pytest.raises(ConfigError, match="none.txt: cannot be read"):
        people([], tmp_path / "none.txt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(ConfigError, match="binary: cannot be read"):
        people([], tmp_path / "binary")
