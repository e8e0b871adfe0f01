"""One cohort in every released shape: text, SAS, the archive of the NDA, MOST, spreadsheets."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from kneeoa_mm.cohort.build import build_cohort
from kneeoa_mm.cohort.sas_tables import sas_rows
from kneeoa_mm.cohort.sources import parse_cell
from kneeoa_mm.cohort_spec import CohortSpec, TableSpec, read_cohort_spec
from kneeoa_mm.errors import InputError, TableError
from kneeoa_mm.records import Outcome
from kneeoa_mm.schemas import COHORT
from kneeoa_mm.tables import read_table

Write = Callable[[dict[str, str]], Path]
Release = dict[str, str]

DATA = Path(__file__).parent / "data"
"""Tables of ``conftest.py``, of the OAI's shape and of MOST's, written as SAS with ReadStat."""
SAS_TABLE = DATA / "kxr_sq_bu00.sas7bdat"


def _cohort(folder: Path) -> pd.DataFrame:
    return read_table(folder / "cohort.parquet", COHORT).set_index("knee_id")


def test_sas_cells_and_missing_codes_are_those_of_the_text_release(release: Release) -> None:
    text = [line.split("|") for line in release["kxr_sq_bu00.txt"].splitlines()]
    header, *rows = [row.cells for row in sas_rows(SAS_TABLE)]
    assert header == text[0]
    assert rows == [[_code(cell) for cell in row] for row in text[1:]]
    assert ".T" in rows[-1]


def _code(cell: str) -> str:
    read = parse_cell(cell)
    return read.code if read.code is not None else str(read.reason).partition(":")[0]


def test_a_release_in_sas_gives_the_cohort_of_the_release_in_text(
    release: Release, tables: Write, spec: CohortSpec, tmp_path: Path
) -> None:
    build_cohort(tables(release), tmp_path / "text", spec=spec)
    (tmp_path / "tables" / "kxr_sq_bu00.txt").unlink()
    shutil.copy(SAS_TABLE, tmp_path / "tables" / "KXR_SQ_BU00.SAS7BDAT")
    build_cohort(tmp_path / "tables", tmp_path / "sas", spec=spec)
    pd.testing.assert_frame_equal(_cohort(tmp_path / "text"), _cohort(tmp_path / "sas"))


def test_a_damaged_sas_table_is_reported_by_name(
    release: Release, tables: Write, spec: CohortSpec, tmp_path: Path
) -> None:
    folder = tables(release)
    (folder / "kxr_sq_bu00.txt").unlink()
    (folder / "kxr_sq_bu00.sas7bdat").write_bytes(SAS_TABLE.read_bytes()[:700])
    with pytest.raises(TableError, match=r"kxr_sq_bu00.sas7bdat: no SAS table"):
        build_cohort(folder, tmp_path / "out", spec=spec)


_SEX = {"1": "M", "2": "F"}


def _nda(release: Release) -> Release:
    """The release of ``conftest.py`` as the NDA's archive has it."""

    def rows(name: str) -> list[dict[str, str]]:
        header, *lines = release[name].splitlines()
        return [
            dict(zip(header.upper().split("|"), line.split("|"), strict=True)) for line in lines
        ]

    def plain(cell: str) -> str:
        return parse_cell(cell).code or ""

    ages = {row["ID"]: row["V00AGE"] for row in rows("SubjectChar00.txt")}
    people = [
        ["", row["ID"], "V00", ages[row["ID"]], _SEX[plain(row["P02SEX"])], row["V00SITE"]]
        for row in rows("Enrollees.txt")
    ]
    clinical = [["", row["ID"], "V00", plain(row["P01BMI"])] for row in rows("AllClinical00.txt")]
    clinical += [["", "9000001", "V06", "99"]]  # another visit is no baseline
    womac = [
        ["", row["ID"], "V00", row["V00WOMTSR"], row["V00WOMTSL"]]
        for row in rows("AllClinical00.txt")
    ]
    kl, jsw = [], []
    for digits in ("00", "01", "03", "05", "06"):
        name = next(n for n in release if n.casefold() == f"kxr_sq_bu{digits}.txt")
        prefix = f"V{digits}"
        kl += [
            ["", r["ID"], prefix, plain(r["SIDE"]), r["READPRJ"],
             *(plain(r[prefix + c]) for c in ("XRKL", "XRJSM", "XRJSL"))]
            for r in rows(name)
        ]  # fmt: skip
        jsw += [
            ["", r["ID"], prefix, plain(r["SIDE"]), r["READPRJ"],
             *(plain(r[prefix + c]) for c in ("MCMJSW", "JSW250", "NOMMJSW", "INCSTPS", "MJSWBB"))]
            for r in rows(f"kxr_qjsw_duryea{digits}.txt")
        ]  # fmt: skip
    wanted = [f"V99E{s}K{c}" for c in ("BLRP", "RPCF", "RPSN", "DAYS") for s in "RL"]
    outcomes = [
        ["", row["ID"], "V99", *(plain(row[name]) for name in wanted),
         plain(row["V99EDDCF"]), plain(row["V99EDDDAYS"]), row["V99RNTCNT"]]
        for row in rows("Outcomes99.txt")
    ]  # fmt: skip
    knee = "src_subject_id visit side readprj"
    return {
        "oai_enrollee01.txt": _tabbed("src_subject_id visit ageyears sex site", people),
        "oai_oarisk01.txt": _tabbed("src_subject_id visit bmi", clinical),
        "oai_koos_womac01.txt": _tabbed(
            "src_subject_id visit womac_total_right womac_total_left", womac
        ),
        "oai_kxrsemiquant01.txt": _tabbed(f"{knee} xrkl xrjsm xrjsl", kl),
        "oai_kxrquantjsw01.txt": _tabbed(f"{knee} mcmjsw jsw250 nommjsw incstps mjswbb", jsw),
        "oai_outcome01.txt": _tabbed(
            "src_subject_id visit rkblrp lkblrp rkrpcf lkrpcf rkrpsn lkrpsn rkdays lkdays "
            "eddcf eddays rntcnt",
            outcomes,
        ),
    }


def _tabbed(columns: str, rows: list[list[str]]) -> str:
    header = ["subjectkey", *columns.split()]
    described = [f"The meaning of {name}" for name in header]
    return "".join("\t".join(row) + "\n" for row in [header, described, *rows])


def _quoted(text: str) -> str:
    """Every cell in quotation marks, as the archive's own export has them."""
    lines = ("\t".join(f'"{cell}"' for cell in line.split("\t")) for line in text.splitlines())
    return "".join(f"{line}\n" for line in lines)


@pytest.mark.parametrize("written", [str, _quoted])
def test_the_archive_of_the_nda_gives_the_outcomes_of_the_text_release(
    release: Release,
    tables: Write,
    spec: CohortSpec,
    tmp_path: Path,
    written: Callable[[str], str],
) -> None:
    spec = spec.model_copy(update={"reading_projects": (15,)})
    build_cohort(tables(release), tmp_path / "text", spec=spec)
    folder = tmp_path / "nda"
    folder.mkdir()
    for name, text in _nda(release).items():
        (folder / name).write_text(written(text))
    build_cohort(folder, tmp_path / "out", spec=read_cohort_spec("oai/nda"))
    text, nda = _cohort(tmp_path / "text"), _cohort(tmp_path / "out")
    text.index = text.index.str.replace("synthetic:", "oai:")
    parts = ("", "_reason", "_event_observed", "_lower_months", "_upper_months")
    same = [f"{outcome}{part}" for outcome in Outcome for part in parts]
    same += ["age_years", "sex", "bmi_kg_m2", "womac_total", "site", "kl_grade", "mjsw_medial_mm"]
    assert set(nda.index) == set(text.index)
    pd.testing.assert_frame_equal(nda[same], text[same].loc[nda.index])


def test_most_follows_the_rules_of_its_codes(
    most_release: Release, tables: Write, tmp_path: Path
) -> None:
    build_cohort(tables(most_release), tmp_path / "out", spec=read_cohort_spec("most"), folds=2)
    frame = _cohort(tmp_path / "out")
    right = frame[frame["laterality"] == "R"].set_index("subject_id")
    assert "MB00005" not in right.index
    parts = ("", "_reason", "_lower_months", "_upper_months")
    kl = {
        subject: tuple(None if pd.isna(cell) else cell for cell in row)
        for subject, *row in right[[f"kl_progression{part}" for part in parts]].itertuples()
    }
    assert kl == {
        "MB00001": (1, None, 15, 30),
        "MB00002": (0, None, 60, 84),
        "MB00003": (None, "replaced", 15, None),
        "MB00004": (0, None, 84, None),
        "MB00006": (None, "died", 15, None),
    }
    tkr = right.loc["MB00003", [f"tkr{part}" for part in parts]].tolist()
    assert tkr == [1, None, 15.0, 30.0]  # first found at 30 months: since the visit before
    assert right.loc["MB00004", "tkr"] == 0
    assert right.loc["MB00006", "tkr_reason"] == "died"
    # found dead at 30 months, filmed last at 15: nobody knows of the knee in between
    times = ["tkr_lower_months", "death_after_months", "death_months"]
    assert right.loc["MB00006", times].tolist() == [15.0, 15.0, 30.0]
    factors = ["sex", "age_years", "bmi_kg_m2", "knee_injury", "womac_total"]
    assert right.loc["MB00001", factors].tolist() == ["F", 62.0, 29.5, 1, 20.0]


def test_most_in_sas_gives_the_cohort_of_most_in_text(
    most_release: Release, tables: Write, tmp_path: Path
) -> None:
    spec = read_cohort_spec("most")
    folder = tables(most_release)
    build_cohort(folder, tmp_path / "text", spec=spec, folds=2)
    for name in ("MOSTV01235XRAY", "mostv0enroll", "mostoutcomes"):
        (folder / f"{name}.txt").unlink()
        shutil.copy(DATA / f"{name.lower()}.sas7bdat", folder)
    build_cohort(folder, tmp_path / "sas", spec=spec, folds=2)
    pd.testing.assert_frame_equal(_cohort(tmp_path / "text"), _cohort(tmp_path / "sas"))


@pytest.mark.parametrize(("horizon", "value"), [(30, 0), (60, 0), (84, 1)])
def test_the_horizon_of_most_is_a_choice(
    most_release: Release, tables: Write, tmp_path: Path, horizon: int, value: int
) -> None:
    document = read_cohort_spec("most").model_dump()
    document["outcomes"]["kl_horizon_months"] = horizon
    build_cohort(
        tables(most_release), tmp_path / "out", spec=CohortSpec.model_validate(document), folds=2
    )
    knee = _cohort(tmp_path / "out").loc["most:MB00002:0:R"]
    assert knee["kl_progression"] == value
    # the film of 84 months shows the rise; when it came depends on no horizon
    interval = [f"kl_progression_{end}_months" for end in ("lower", "upper")]
    assert knee[interval].tolist() == [60, 84]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("utf-16-le"),
        lambda text: text.replace("\n", "\r\n").encode("cp1252"),
        lambda text: text.replace("|", ";").replace("27.5", "27,5").encode("latin-1"),
        lambda text: text.replace("|", "\t").encode("latin-1"),
        lambda text: text.replace("|", ",").encode("latin-1"),
    ],
    ids=["mark", "UTF-16", "UTF-16 without mark", "Windows", "semicolons", "tabs", "commas"],
)
def test_what_programs_do_to_text_does_not_change_the_cohort(
    release: Release,
    tables: Write,
    spec: CohortSpec,
    tmp_path: Path,
    spoil: Callable[[str], bytes],
) -> None:
    build_cohort(tables(release), tmp_path / "before", spec=spec)
    name = "AllClinical00.txt"
    (tmp_path / "tables" / name).write_bytes(spoil(release[name]))
    build_cohort(tmp_path / "tables", tmp_path / "after", spec=spec)
    pd.testing.assert_frame_equal(_cohort(tmp_path / "before"), _cohort(tmp_path / "after"))


@pytest.mark.parametrize(
    ("right", "left"), [("1", "2"), ("1: Right", "2: Left"), ("R", "L"), ("right", "LEFT")]
)
def test_side_is_understood_in_every_coding(
    release: Release, tables: Write, spec: CohortSpec, tmp_path: Path, right: str, left: str
) -> None:
    build_cohort(tables(release), tmp_path / "before", spec=spec)
    name = "kxr_sq_bu00.txt"
    text = release[name].replace("1: Right", right).replace("2: Left", left)
    (tmp_path / "tables" / name).write_text(text)
    build_cohort(tmp_path / "tables", tmp_path / "after", spec=spec)
    pd.testing.assert_frame_equal(_cohort(tmp_path / "before"), _cohort(tmp_path / "after"))


def test_a_decimal_comma_where_none_is_expected_is_refused_with_what_to_say(
    release: Release, tables: Write, spec: CohortSpec, tmp_path: Path
) -> None:
    release["AllClinical00.txt"] = release["AllClinical00.txt"].replace("27.5", "27,5")
    with pytest.raises(TableError, match=r"'27,5' is no number; .* say decimal: ','"):
        build_cohort(tables(release), tmp_path / "out", spec=spec)


def test_leading_zeros_that_a_spreadsheet_took_are_noticed(
    release: Release, tables: Write, spec: CohortSpec, tmp_path: Path
) -> None:
    release["Outcomes99.txt"] = release["Outcomes99.txt"].replace("0000007", "7")
    with pytest.raises(TableError, match=r"outcomes: 1 subject\(s\) as 7, which .* as 0000007"):
        build_cohort(tables(release), tmp_path / "out", spec=spec)


def test_a_value_out_of_range_can_be_missing_with_its_reason(
    release: Release, tables: Write, spec: CohortSpec, tmp_path: Path
) -> None:
    text = release["AllClinical00.txt"].replace("|27.5|", "|290|").replace("|31.0|", "|2.9|")
    release["AllClinical00.txt"] = text
    document = spec.model_dump()
    document["tables"]["clinical"]["columns"]["bmi_kg_m2"]["out_of_range"] = "missing"
    build_cohort(tables(release), tmp_path / "out", spec=CohortSpec.model_validate(document))
    frame = _cohort(tmp_path / "out")
    for knee, found in (("9000001:0:R", "290"), ("9000002:0:R", "2.9")):
        row = frame.loc[f"synthetic:{knee}"]
        assert pd.isna(row["bmi_kg_m2"])
        assert f"bmi_kg_m2: out of range: {found}" in row["missing_reasons"]


def test_only_the_rows_that_are_chosen_are_read(tmp_path: Path) -> None:
    from kneeoa_mm.cohort.sources import Source, read_source

    path = tmp_path / "exams.txt"
    path.write_text("ID|EXAM|HKANGLE\nwhat|it|means\n1|1: Full Limb|-2\n2|2: Knee|5\n")
    table = TableSpec.model_validate(
        {
            "file": "exams.txt",
            "dictionary_rows": 1,
            "rows": {"exam": [1]},
            "columns": {"subject_id": "ID", "hka_deg": "HKANGLE"},
        }
    )
    frame = read_source(Source("exams", table, path))
    assert frame[["subject_id", "hka_deg"]].values.tolist() == [["1", "-2"]]


def test_no_table_at_all_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        build_cohort(tmp_path / "nowhere", tmp_path / "out", spec=read_cohort_spec("most"))
