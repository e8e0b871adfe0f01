"""The landmark that docs/how-to/oai.md describes, on the whole route from tables to cohort."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from kneeoa_mm.cohort.build import build_cohort
from kneeoa_mm.cohort_spec import CohortSpec, read_cohort_spec
from kneeoa_mm.errors import ConfigError, LeakError
from kneeoa_mm.schemas import COHORT
from kneeoa_mm.tables import read_table

Write = Callable[[dict[str, str]], Path]

_HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "oai.md"


@pytest.fixture
def landmark(tmp_path: Path) -> CohortSpec:
    """The map as the page has it."""
    [block] = re.findall(r"```yaml\n(# landmark\.yaml.*?)```", _HOW_TO.read_text(), re.DOTALL)
    (tmp_path / "landmark.yaml").write_text(block)
    return read_cohort_spec(str(tmp_path / "landmark.yaml"))


@pytest.fixture
def followed(release: dict[str, str]) -> dict[str, str]:
    """The release with full-limb films, later visits, and events before and after 12 months.

    9000001's right knee was replaced on day 500; 9000003's left one, with a film at 12 months, on
    day 200; 9000004 died on day 487.
    """
    outcomes = release["Outcomes99.txt"].splitlines()
    outcomes[1] = "9000001|0: No|0: No|3: Replacement adjudicated, confirmed| | | |500| | | |11"
    release["Outcomes99.txt"] = "\n".join(outcomes).replace("|913|", "|200|") + "\n"
    release["KXR_SQ_BU01.txt"] += "9000003|2: Left|15|0.9|3|2|0\n"
    release["flxr_kneealign_cooke01.txt"] = "ID|SIDE|V01HKANGLE\n9000001|1|-4.5\n9000004|2|1.5\n"
    for visit in ("08", "10"):
        for name in ("kxr_sq_bu", "kxr_qjsw_duryea"):
            header = release[f"{name}06.txt"].splitlines()[0]
            release[f"{name}{visit}.txt"] = header.replace("V06", f"V{visit}") + "\n"
    return release


def test_the_documented_landmark_gives_the_angle_and_times_since_then(
    landmark: CohortSpec, followed: dict[str, str], tables: Write, tmp_path: Path
) -> None:
    build_cohort(tables(followed), tmp_path / "out", spec=landmark, folds=3)
    frame = read_table(tmp_path / "out" / "cohort.parquet", COHORT).set_index("knee_id")
    right = frame.loc["oai-landmark:9000001:0:R"]
    assert right[["hka_deg", "kl_grade", "age_years", "fta_deg"]].tolist() == [-4.5, 2, 60, -2.5]
    # day 500 is month 16.43 of the study, and 4.43 since the landmark
    assert right["tkr_upper_months"] == pytest.approx(500 / 365.25 * 12 - 12)
    assert right["last_contact_months"] == 108 - 12
    # 2.9 mm at V01, and no film of the knee after its replacement
    assert right["mjsw_medial_mm"] == 2.9
    assert right["jsl_or_kr_48m"] == 1
    left = frame.loc["oai-landmark:9000004:0:L"]
    assert left["death_months"] == pytest.approx(487 / 365.25 * 12 - 12)
    assert left["last_contact_months"] == 0
    attrition = pd.read_csv(tmp_path / "out" / "attrition.csv").set_index("step")["knees"]
    assert attrition["replaced before the landmark"] == 1
    assert not frame.index.str.contains("9000003").any()


def test_an_unsaid_landmark_is_refused(landmark: CohortSpec, tmp_path: Path) -> None:
    """Days since enrolment would be taken for days since the baseline."""
    unsaid = landmark.model_copy(update={"landmark_months": 0})
    with pytest.raises(ConfigError, match=r"V01 at 0 months.*V00"):
        build_cohort(tmp_path, tmp_path / "out", spec=unsaid)


def test_a_factor_from_after_the_landmark_is_refused(landmark: CohortSpec, tmp_path: Path) -> None:
    document = landmark.model_dump()
    document["tables"]["limbs"]["columns"]["hka_deg"]["column"] = "V03HKANGLE"
    with pytest.raises(LeakError, match="hka_deg from V03HKANGLE"):
        build_cohort(tmp_path, tmp_path / "out", spec=CohortSpec.model_validate(document))


def test_a_code_that_is_changed_leaves_the_other_codes_alone(tmp_path: Path) -> None:
    """MOST's 8 and 9 stay missing where a map says only what 1.9 is; null can be said anew."""
    codes = "{1.9: 0, 4: null}"
    (tmp_path / "most-2.yaml").write_text(
        f"extends: most\ntables: {{kl: {{columns: {{kl_grade: {{codes: {codes}}}}}}}}}\n"
    )
    own = read_cohort_spec(str(tmp_path / "most-2.yaml")).tables["kl"].columns["kl_grade"].codes
    shipped = read_cohort_spec("most").tables["kl"].columns["kl_grade"].codes
    assert own == {**shipped, "1.9": 0, "4": None}
    assert own["8"] is own["9"] is None
