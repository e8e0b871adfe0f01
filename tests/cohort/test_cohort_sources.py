"""Reading of source tables: what a release may look like, and what stops it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kneeoa_mm.cohort.search import find_sources
from kneeoa_mm.cohort.sources import Cell, parse_cell, read_source
from kneeoa_mm.cohort_spec import CohortSpec, TableSpec
from kneeoa_mm.errors import InputError, TableError

Write = Callable[[dict[str, str]], Path]


def _people(**more: object) -> CohortSpec:
    table = TableSpec.model_validate(
        {"file": "People.txt", "columns": {"subject_id": "ID", "sex": "P02SEX"}, **more}
    )
    return CohortSpec(name="tiny", visits={"V00": 0}, tables={"enrollees": table})


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("1: Right", Cell("1", None)),
        ("2", Cell("2", None)),
        (" 27.5 ", Cell("27.5", None)),
        (".5", Cell(".5", None)),
        ("-3.5", Cell("-3.5", None)),
        ("", Cell(None, "blank")),
        (" ", Cell(None, "blank")),
        (".", Cell(None, ".")),
        (".: Missing Form/Incomplete Workbook", Cell(None, ".: Missing Form/Incomplete Workbook")),
        (".A: Not Expected", Cell(None, ".A: Not Expected")),
        (".T: Technical Problems", Cell(None, ".T: Technical Problems")),
    ],
)
def test_a_cell_is_a_code_or_a_reason(text: str, cell: Cell) -> None:
    assert parse_cell(text) == cell


@pytest.mark.parametrize("header", ["ID|P02SEX", "id|p02sex", " Id | P02Sex "])
@pytest.mark.parametrize("name", ["People.txt", "PEOPLE.TXT", "general/ascii/people.txt"])
def test_files_and_columns_are_found_in_any_case_and_folder(
    tmp_path: Path, header: str, name: str
) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{header}\n0000007|1: Male\n")
    [source] = find_sources(tmp_path, _people())
    frame = read_source(source)
    assert frame.to_dict("records") == [{"line": 2, "subject_id": "0000007", "sex": "1: Male"}]


@pytest.mark.parametrize(
    "data",
    [
        "ID|P02SEX\n1|caf\u00e9\n".encode("latin-1"),
        "\ufeffID|P02SEX\n1|caf\u00e9\n".encode(),
        "ID|P02SEX\n1|caf\u00e9\n".encode("utf-16"),
        "ID|P02SEX\r\n1|caf\u00e9\r\n\r\n".encode("latin-1"),
    ],
    ids=["latin-1", "utf-8 with mark", "utf-16", "Windows line ends"],
)
def test_encodings_and_line_ends_give_the_same_rows(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "People.txt").write_bytes(data)
    [source] = find_sources(tmp_path, _people())
    assert read_source(source)["sex"].tolist() == ["caf\u00e9"]


def test_a_quotation_mark_in_a_pipe_separated_cell_is_a_character(tmp_path: Path) -> None:
    (tmp_path / "People.txt").write_text('ID|P02SEX\n1|5" tall\n2|x\n')
    [source] = find_sources(tmp_path, _people())
    assert read_source(source)["sex"].tolist() == ['5" tall', "x"]


def test_another_separator_can_be_declared(tmp_path: Path) -> None:
    (tmp_path / "People.txt").write_text('ID,P02SEX\n1,"Smith, male"\n')
    [source] = find_sources(tmp_path, _people(separator=","))
    assert read_source(source)["sex"].tolist() == ["Smith, male"]


def test_all_absent_files_and_columns_are_reported_at_once(
    tables: Write, release: dict[str, str], spec: CohortSpec
) -> None:
    del release["kxr_qjsw_duryea03.txt"], release["SubjectChar00.txt"]
    release["Enrollees.txt"] = release["Enrollees.txt"].replace("P02SEX", "SEX")
    release["KXR_SQ_BU01.txt"] = release["KXR_SQ_BU01.txt"].replace("v01xrkl", "kl")
    with pytest.raises(TableError) as caught:
        find_sources(tables(release), spec)
    assert caught.value.faults == [
        "Enrollees.txt: column P02SEX (sex) is missing",
        "SubjectChar00.txt: no such file",
        "KXR_SQ_BU01.txt: column V01XRKL (kl_grade) is missing",
        "kxr_qjsw_duryea03.txt: no such file",
    ]


def test_optional_tables_and_columns_may_be_absent(tmp_path: Path) -> None:
    (tmp_path / "People.txt").write_text("ID\n1\n")
    spec = _people(columns={"subject_id": "ID", "sex": {"column": "P02SEX", "optional": True}})
    [source] = find_sources(tmp_path, spec)
    assert read_source(source)["sex"].tolist() == [None]

    extra = TableSpec.model_validate(
        {"file": "Other.txt", "optional": True, "columns": {"subject_id": "ID"}}
    )
    wider = spec.model_copy(update={"tables": {**spec.tables, "other": extra}})
    assert [source.table for source in find_sources(tmp_path, wider)] == ["enrollees"]


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "People.txt").write_text("ID|P02SEX\n1|1\n")
    with pytest.raises(TableError, match=r"there are several, new/People.txt, old/People.txt"):
        find_sources(tmp_path, _people())


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "People.txt").write_text("ID|P02SEX|p02sex\n1|1|2\n")
    with pytest.raises(TableError, match="P02SEX is there 2 times"):
        find_sources(tmp_path, _people())


def test_broken_lines_are_listed_by_number(tmp_path: Path) -> None:
    (tmp_path / "People.txt").write_text("ID|P02SEX\n1|1\n2\n3|1|1\n4|2\n")
    [source] = find_sources(tmp_path, _people())
    with pytest.raises(TableError, match=r"not 2 fields in line\(s\) 3, 4"):
        read_source(source)


def test_every_broken_line_is_listed_however_many_there_are(tmp_path: Path) -> None:
    """Forty lines apart, and ten in a row."""
    lines = ["1|1"] * 101
    for number in (*range(3, 83, 2), *range(90, 100)):
        lines[number - 2] = "1"
    (tmp_path / "People.txt").write_text("ID|P02SEX\n" + "\n".join(lines) + "\n")
    [source] = find_sources(tmp_path, _people())
    with pytest.raises(TableError) as caught:
        read_source(source)
    apart = ", ".join(str(number) for number in range(3, 83, 2))
    assert caught.value.faults == [f"People.txt: not 2 fields in line(s) {apart}, 90-99"]


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "People.txt").write_text("\n")
    with pytest.raises(TableError, match="the file is empty"):
        find_sources(tmp_path, _people())


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tables folder is not there"):
        find_sources(tmp_path / "nowhere", _people())
