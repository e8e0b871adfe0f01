"""A clinical table for prediction is read as programs write it, or refused with all its faults."""

import pandas as pd
import pytest

from kneeoa_mm.errors import InputError, TableError
from kneeoa_mm.learning.clinical_table import read_clinical, untold

PLAIN = """knee_id,age_years,sex,bmi_kg_m2,race,knee_injury,hospital
oai:1:0:L,61,F,27.5,White,1,north
oai:2:0:R,NA,M,,Black,0,south
"""


@pytest.fixture
def write(tmp_path):
    def to_file(content, name="clinical.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return to_file


def faults_of(path):
    with pytest.raises(TableError) as refusal:
        read_clinical(path)
    return refusal.value.faults


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("utf-16-be"),
        lambda text: text.replace("\n", "\r\n").encode("cp1252"),
        lambda text: text.replace(",", ";").encode(),
        lambda text: text.replace(",", ";").replace("27.5", "27,5").encode(),
        lambda text: text.replace(",", "\t").encode(),
        lambda text: text.replace(",", " , ").encode(),
    ],
    ids=["mark", "UTF-16", "no mark", "Windows", "semicolons", "decimal", "tabs", "spaces"],
)
def test_what_programs_do_to_a_table_does_not_change_what_is_read(write, spoil):
    before = read_clinical(write(PLAIN))
    assert before.loc["oai:1:0:L", ["age_years", "bmi_kg_m2"]].tolist() == [61, 27.5]
    assert before.loc["oai:2:0:R", ["age_years", "bmi_kg_m2"]].isna().all()
    pd.testing.assert_frame_equal(read_clinical(write(spoil(PLAIN))), before)


def test_values_that_cannot_be_are_refused_in_one_message_with_every_line(write):
    rows = [
        f"oai:{number}:0:L,{age},{sex},{bmi}"
        for number, (age, sex, bmi) in enumerate(
            [(60, "F", 290), (61, "female", 27), (6, "M", 2.9), ("old", "M", 28), ("61,5", "F", 26)]
        )
    ]
    lines = ["knee_id;age_years;sex;bmi_kg_m2", *(row.replace(",", ";") for row in rows)]
    faults = faults_of(write("\n".join([*lines[:-1], "oai:4:0:L;61,5;F;26"])))
    assert faults == [
        "column age_years: must be a number, found old in line(s) 5",
        "column age_years: must lie in 18 to 110 years, found 6 in line(s) 4",
        "column sex: must be one of F, M, found female in line(s) 3",
        "column bmi_kg_m2: must lie in 10 to 80 kg/m2, found 290, 2.9 in line(s) 2, 4",
    ]


def test_decimal_commas_between_commas_are_refused_line_by_line(write):
    text = 'knee_id,age_years\na:1:0:L,"61,5"\na:2:0:L,60\na:3:0:L,"59,5"\n'
    assert faults_of(write(text)) == [
        "column age_years: must be a number, found 61,5, 59,5 in line(s) 2, 4"
    ]
    with pytest.raises(TableError, match="decimal comma needs ;"):
        read_clinical(write(text))


def test_broken_lines_and_knees_that_stand_twice_or_have_no_name_are_all_named(write):
    text = "knee_id,age_years\na:1:0:L,60\na:1:0:L,61\n,62\na:2:0:L\na:3:0:L,60,1\n"
    assert faults_of(write(text)) == [
        "not 2 fields in line(s) 5, 6",
        "column knee_id: is empty in line(s) 4",
        "column knee_id: stands twice, found a:1:0:L in line(s) 2, 3",
    ]


def test_a_column_that_stands_twice_is_refused(write):
    with pytest.raises(InputError, match=r"stands twice(.|\n)*age_years"):
        read_clinical(write("knee_id,age_years,age_years\na:1:0:L,60,61\n"))


def test_a_parquet_table_obeys_the_same_rules(tmp_path):
    path = tmp_path / "clinical.parquet"
    table = pd.DataFrame({"knee_id": ["a:1:0:L", "a:2:0:L"], "bmi_kg_m2": [27.0, 290.0]})
    table.to_parquet(path)
    assert faults_of(path) == [
        "column bmi_kg_m2: must lie in 10 to 80 kg/m2, found 290.0 in line(s) 2"
    ]
    table.assign(bmi_kg_m2=["27", None], hospital=["1", "north"]).to_parquet(path)
    read = read_clinical(path)
    assert read["bmi_kg_m2"].iloc[0] == 27
    assert read["hospital"].tolist() == ["1", "north"]


def test_what_is_no_table_of_knees_is_refused(write, tmp_path):
    with pytest.raises(InputError, match="lacks a column"):
        read_clinical(write(""))
    with pytest.raises(InputError, match="cannot be read"):
        read_clinical(write("knee_id\n", "clinical.xlsx"))
    with pytest.raises(InputError, match="not there"):
        read_clinical(tmp_path / "none.csv")


def test_a_factor_that_is_there_but_empty_is_said_to_be_imputed():
    table = pd.DataFrame(
        {"age_years": [60.0, None, 61.0], "bmi_kg_m2": [None, None, 30.0], "sex": ["F", "M", "F"]},
        index=pd.Index(["a", "b", "c"], name="knee_id"),
    )
    (absent, gaps) = untold({*table, "fta_deg"}, table, pd.Series(["a", "b"]))
    assert absent.startswith("No values for bmi_kg_m2, fta_deg: imputed")
    assert "age_years of 1 knees" in gaps
    assert "sex" not in gaps
    assert untold({"sex"}, table, pd.Series(["a", "b"])) == ()
