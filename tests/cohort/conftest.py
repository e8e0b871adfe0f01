"""A release of ten people in the OAI's text format, small enough to work out by hand.

Each knee of it is one case; ``test_cohort_build.py`` holds the outcomes that were worked out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kneeoa_mm.cohort_spec import CohortSpec, read_cohort_spec

_GOOD = "0: No|0: No|0: No"

_RELEASE = {
    "Enrollees.txt": """
ID|VERSION|P02SEX|P02RACE|P02HISP|V00SITE
9000001|2.1|1: Male|1: White or Caucasian|0: No|A
9000002|2.1|2: Female|2: Black or African American|0: No|B
9000003|2.1|2: Female|3: Asian|0: No|C
9000004|2.1|1: Male|0: Other Non-white|0: No|D
9000005|2.1|2: Female|.: Missing Form/Incomplete Workbook|0: No|E
9000006|2.1|2: Female|1: White or Caucasian|0: No|A
0000007|2.1|1: Male|1: White or Caucasian|0: No|B
9000008|2.1|2: Female|1: White or Caucasian|0: No|C
9000009|2.1|1: Male|1: White or Caucasian|0: No|D
9000010|2.1|2: Female|1: White or Caucasian|0: No|E
""",
    "SubjectChar00.txt": """
id|v00age
9000001|60
9000002|61
9000003|62
9000004|63
9000005|64
9000006|65
0000007|66
9000008|67
9000009|68
9000010|69
""",
    # 9000010 has no row; the injury of 9000002's left knee was not asked
    "AllClinical00.txt": """
ID|P01BMI|P01HEIGHT|P01WEIGHT|P01INJR|P01INJL|V00WOMTSR|V00WOMTSL
9000001|27.5|1750|84.2|0: No|1: Yes|0|12.5
9000002|31.0|1620|81.3|1: Yes|.A: Not Expected|20|21
9000003|.T: Technical Problems|1620|.|0: No|0: No|33|
9000004|25.0|1800|81|0: No|0: No|1|2
9000005|25.0|1800|81|0: No|0: No|1|2
9000006|25.0|1800|81|0: No|0: No|1|2
0000007|25.0|1800|81|0: No|0: No|1|2
9000008|25.0|1800|81|0: No|0: No|1|2
9000009|25.0|1800|81|0: No|0: No|1|2
""",
    "KXR_FTA_DURYEA00.txt": """
ID|SIDE|READPRJ|V00FTANGLE|FTAFLAG
9000001|1: Right|16|-2.5|0
9000001|2: Left|16|4.25|0
""",
    # 0000007 was read by three projects; 9000010's right film could not be graded, the left was not
    # read at all; 9000005's left knee was replaced before the study
    "kxr_sq_bu00.txt": """
ID|SIDE|READPRJ|VERSION|V00XRKL|V00XRJSM|V00XRJSL
9000001|1: Right|15|0.9|2|1|0
9000001|2: Left|15|0.9|1|0|0
9000002|1: Right|15|0.9|3: Moderate|2|0
9000002|2: Left|15|0.9|3|3|0
9000003|1: Right|15|0.9|4|3|0
9000003|2: Left|15|0.9|3|2|0
9000004|1: Right|15|0.9|0|0|0
9000004|2: Left|15|0.9|2|1|0
9000005|1: Right|15|0.9|2|1|0
9000005|2: Left|15|0.9|3|1|0
9000006|1: Right|15|0.9|2|1|0
9000006|2: Left|15|0.9|2|1|0
0000007|1: Right|42|0.9|1|1|0
0000007|1: Right|15|0.9|2|1|0
0000007|1: Right|37|0.9|2|1|0
0000007|2: Left|15|0.9|1|0|0
0000007|2: Left|37|0.9|1|0|0
9000008|1: Right|15|0.9|3|2|0
9000008|2: Left|15|0.9|2|1|0
9000009|1: Right|15|0.9|3|2|0
9000009|2: Left|15|0.9|0|0|0
9000010|1: Right|15|0.9|.T: Technical Problems|.|.
""",
    "KXR_SQ_BU01.txt": """
id|side|readprj|version|v01xrkl|v01xrjsm|v01xrjsl
9000001|1: Right|15|0.9|2|1|0
9000004|2: Left|15|0.9|3|1|0
0000007|1: Right|15|0.9|4|1|0
""",
    "kxr_sq_bu03.txt": """
ID|SIDE|READPRJ|VERSION|V03XRKL|V03XRJSM|V03XRJSL
9000003|2: Left|15|0.9|3|2|0
9000005|1: Right|15|0.9|2|1|0
9000009|1: Right|15|0.9|2|1|0
""",
    "kxr_sq_bu05.txt": """
ID|SIDE|READPRJ|VERSION|V05XRKL|V05XRJSM|V05XRJSL
9000003|2: Left|15|0.9|4|3|0
""",
    "kxr_sq_bu06.txt": """
ID|SIDE|READPRJ|VERSION|V06XRKL|V06XRJSM|V06XRJSL
9000001|1: Right|15|0.9|3|2|0
9000001|2: Left|15|0.9|1|0|0
9000002|1: Right|15|0.9|4|3|0
9000002|2: Left|15|0.9|3|3|0
9000003|1: Right|15|0.9|4|3|0
9000006|1: Right|15|0.9|2|1|0
9000006|2: Left|15|0.9|2|1|0
0000007|1: Right|37|0.9|3|2|0
0000007|1: Right|42|0.9|1|0|0
0000007|2: Left|15|0.9|1|0|0
0000007|2: Left|37|0.9|2|0|0
9000008|1: Right|15|0.9|3|2|0
9000008|2: Left|15|0.9|2|1|0
9000009|1: Right|15|0.9|3|2|0
9000009|2: Left|15|0.9|1|0|0
""",
    # The last three fields: no minimum, position differs, bone on bone
    "kxr_qjsw_duryea00.txt": f"""
ID|SIDE|READPRJ|V00MCMJSW|V00JSW250|V00NOMMJSW|V00INCSTPS|V00MJSWBB
9000001|1: Right|16|2.900|4.1|{_GOOD}
9000001|2: Left|16|4.000|5.1|{_GOOD}
9000002|1: Right|16|1.000|2.1|{_GOOD}
9000002|2: Left|16|0.699|1.1|{_GOOD}
9000003|1: Right|16|2.000|3.1|{_GOOD}
9000003|2: Left|16|3.000|3.1|{_GOOD}
9000004|1: Right|16|5.000|6.0|{_GOOD}
9000004|2: Left|16|5.000|6.0|{_GOOD}
9000005|1: Right|16|4.000|5.0|{_GOOD}
9000006|1: Right|16|4.000|5.0|{_GOOD}
9000006|2: Left|16|4.000|5.0|{_GOOD}
0000007|1: Right|20|9.000|9.0|{_GOOD}
0000007|1: Right|16|4.000|5.0|{_GOOD}
0000007|2: Left|16|.T: Technical Problems|.|1: Yes|0: No|0: No
9000008|1: Right|16|4.000|5.0|{_GOOD}
9000008|2: Left|16|4.000|5.0|{_GOOD}
9000009|1: Right|16|4.000|5.0|{_GOOD}
""",
    "kxr_qjsw_duryea01.txt": f"""
ID|SIDE|READPRJ|V01MCMJSW|V01JSW250|V01NOMMJSW|V01INCSTPS|V01MJSWBB
9000001|1: Right|16|2.900|4.1|{_GOOD}
9000001|2: Left|16|3.200|5.1|{_GOOD}
9000003|2: Left|16|2.900|3.1|{_GOOD}
""",
    "kxr_qjsw_duryea03.txt": f"""
ID|SIDE|READPRJ|V03MCMJSW|V03JSW250|V03NOMMJSW|V03INCSTPS|V03MJSWBB
9000001|1: Right|16|2.000|4.1|{_GOOD}
9000005|1: Right|16|3.000|4.1|{_GOOD}
""",
    "kxr_qjsw_duryea05.txt": f"""
ID|SIDE|READPRJ|V05MCMJSW|V05JSW250|V05NOMMJSW|V05INCSTPS|V05MJSWBB
9000006|1: Right|16|3.900|5.0|{_GOOD}
""",
    "kxr_qjsw_duryea06.txt": f"""
ID|SIDE|READPRJ|V06MCMJSW|V06JSW250|V06NOMMJSW|V06INCSTPS|V06MJSWBB
9000001|1: Right|16|2.200|4.1|{_GOOD}
9000001|2: Left|16|3.301|5.1|{_GOOD}
9000002|1: Right|16|.T: Technical Problems|.|0: No|0: No|1: Yes
9000002|2: Left|16|0.000|1.1|{_GOOD}
9000003|1: Right|16|1.000|3.1|{_GOOD}
9000006|1: Right|16|.|.|1: Yes|0: No|0: No
9000006|2: Left|16|1.000|2.0|0: No|1: Yes|0: No
0000007|1: Right|20|1.000|1.0|{_GOOD}
0000007|1: Right|16|3.900|5.0|{_GOOD}
0000007|2: Left|16|3.000|4.0|{_GOOD}
9000008|1: Right|16|2.000|3.0|{_GOOD}
9000008|2: Left|16|4.000|5.0|{_GOOD}
9000009|1: Right|16|4.500|5.0|{_GOOD}
""",
    # 9000003 left: adjudicated on day 913 = month 29.996; 9000004 died on day 487 = month 16;
    # 9000005: last contact code 3 is month 24, left replaced before the study;
    # 9000008: right seen on film on day 1826.25 = month 60, left reported on day 700 = month 23
    "Outcomes99.txt": """
id|V99ERKBLRP|V99ELKBLRP|V99ERKRPCF|V99ELKRPCF|V99ERKRPSN|V99ELKRPSN|V99ERKDAYS|V99ELKDAYS|V99EDDCF|V99EDDDAYS|V99RNTCNT
9000001|0: No|0: No| | | | | | | | |11
9000002|0: No|0: No| | | | | | | | |10
9000003|0: No|0: No| |3: Replacement adjudicated, confirmed| | | |913| | |10
9000004|0: No|0: No| | | | | | |3: Death adjudicated, confirmed|487|1
9000005|0: No|1: Yes| | | | | | | | |3
9000006|0: No|0: No|0: Replacement adjudicated, failed to confirm| | | |900| | | |10
0000007|0: No|0: No| | | | | | | | |10
9000008|0: No|0: No| |1: Self-report|1: Yes| |1826.25|700| | |10
9000009|0: No|0: No| | | | | | | | |7
9000010|0: No|0: No| | | | | | | | |10
""",
}


@pytest.fixture
def release() -> dict[str, str]:
    """File name to text; a test changes what it is about."""
    return {name: text.lstrip("\n") for name, text in _RELEASE.items()}


@pytest.fixture
def tables(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    """Write a release and return its folder."""

    def write(files: dict[str, str]) -> Path:
        folder = tmp_path / "tables"
        folder.mkdir(exist_ok=True)
        for name, text in files.items():
            (folder / name).write_bytes(text.encode("latin-1"))
        return folder

    return write


@pytest.fixture
def spec() -> CohortSpec:
    """The shipped cohort in the shape of the OAI's release."""
    return read_cohort_spec("synthetic")


# MOST: KL grades of the right knee at 0, 15, 30, 60 and 84 months
_MOST_RIGHT = {
    "MB00001": "1 1.9 2 3 3",  # a rise to 2 at 30 months
    "MB00002": "0 1.9 1 1.9 2",  # 1.9 stays below 2: no rise by 60 months, and one by 84
    "MB00003": "2 2 8 . .",  # a prosthesis that the outcomes file confirms at 30 months
    "MB00004": "2 2 8 2 2",  # 8 without a replacement is a bad film
    "MB00005": "9 2 2 2 2",  # no grade at baseline
    "MB00006": "3 3 . . .",  # not seen after 15 months
}
_MOST_EVENTS = {"MB00003": ("2", "."), "MB00006": (".", "2")}


@pytest.fixture
def most_release() -> dict[str, str]:
    """A release of six people in the shape of MOST's; ``test_cohort_formats.py`` has outcomes."""
    visits = (0, 1, 2, 3, 5)
    grades = [["MOSTID", *(f"V{v}X{s}KL" for v in visits for s in "RL")]]
    people = [["MOSTID", "SEX", "AGE", "V0BMI", "V0LAR", "V0LAL", "V0WOTOTR", "V0WOTOTL", "V0PA"]]
    outcomes = [["MOSTID", "V99ERKRINDEX", "V99ELKRINDEX", "V99EDINDEX"]]
    seen: dict[int, list[list[str]]] = {v: [["MOSTID", f"V{v}PA"]] for v in visits[1:]}
    for subject, right in _MOST_RIGHT.items():
        read = right.split()
        grades.append([subject, *(cell for grade in read for cell in (grade, "0"))])
        people.append([subject, "2", "62", "29.5", "1", "0", "20", "3", "1"])
        replaced, died = _MOST_EVENTS.get(subject, (".", "."))
        outcomes.append([subject, replaced, ".", died])
        for visit, grade in zip(visits[1:], read[1:], strict=True):
            seen[visit].append([subject, "0" if grade == "." else "1"])
    files = {"MOSTV01235XRAY.txt": grades, "mostv0enroll.txt": people, "mostoutcomes.txt": outcomes}
    files |= {f"mostv{visit}enroll.txt": rows for visit, rows in seen.items()}
    return {n: "".join("\t".join(r) + "\n" for r in rows) for n, rows in files.items()}
