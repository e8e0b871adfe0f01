"""``cohorts/<name>/analyse.py`` make the analysis of releases in the shape of the real ones.

That of the synthetic cohort is run in ``test_cohort_truth.py``.
"""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from kneeoa_mm.analysis.report import report
from kneeoa_mm.config import shipped

Write = Callable[[dict[str, str]], Path]


def _analyse(cohort: str, tables: Path, out: Path) -> None:
    script = runpy.run_path(str(shipped("cohorts") / cohort / "analyse.py"))
    script["analyse"](tables, out, {}, n_boot=50)


def _add_pain(release: dict[str, str]) -> None:
    """WOMAC pain of everybody at all visits that count: 3, but of 9000001 as the test says."""
    header, *lines = release["AllClinical00.txt"].splitlines()
    scored = [f"{header}|V00WOMKPR|V00WOMKPL", *(f"{line}|3|3" for line in lines)]
    release["AllClinical00.txt"] = "\n".join(scored) + "\n"
    for digits, of_the_first in (("03", "5|3"), ("05", "5|5"), ("06", "3|6")):
        rows = [f"ID|V{digits}WOMKPR|V{digits}WOMKPL"]
        for line in lines:
            subject = line.partition("|")[0]
            rows.append(f"{subject}|{of_the_first if subject == '9000001' else '3|3'}")
        release[f"AllClinical{digits}.txt"] = "\n".join(rows) + "\n"


def test_the_oai_script_runs_on_a_release_of_ten(
    release: dict[str, str],
    tables: Write,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for digits in ("08", "10"):  # later visits, at which nobody was read
        for name in ("kxr_sq_bu", "kxr_qjsw_duryea"):
            header = release[f"{name}06.txt"].splitlines()[0].replace("V06", f"V{digits}")
            release[f"{name}{digits}.txt"] = header + "\n"
    _add_pain(release)
    _analyse("oai", tables(release), tmp_path / "out")
    survival = json.loads((tmp_path / "out" / "survival" / "tkr" / "survival.json").read_text())
    # 9000003 left at 30 months, 9000008 right at 60
    assert survival["counts"]["events"] == 2
    assert survival["cox"]["reason"]
    assert survival["prognosis"]["reason"]
    assert (tmp_path / "out" / "survival" / "tkr_by_site" / "survival.json").is_file()
    assert (tmp_path / "out" / "survival" / "tkr_by_age" / "survival.json").is_file()
    told = capsys.readouterr().out
    # by hand: 9000001's right knee rises by 2 at 24 and 36 months, and its left at 36 and 48; all
    # others stay, but 9000003's left is replaced at 30 months and both of 9000004 die at 16
    pain = json.loads(
        (tmp_path / "out" / "survival" / "pain_progression" / "survival.json").read_text()
    )
    assert pain["counts"]["events"] == 2
    cohort = pd.read_csv(tmp_path / "out" / "cohort" / "cohort.csv").set_index("knee_id")
    assert cohort.loc["oai:9000003:0:L", "pain_progression_reason"] == "replaced"
    assert cohort.loc["oai:9000004:0:R", "pain_progression_reason"] == "died"
    report([tmp_path / "out"], tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "Readers and the model" in page
    assert "persons are too few to judge" in told or "no year with an event" in told
    for title in ("Flow", "Table 1 by jsl_48m", "Incidence by KL grade", "Models", "Two readings"):
        assert f"\n{title}" in told


def test_films_that_two_projects_read_tell_how_readers_agree(
    release: dict[str, str], tables: Write, tmp_path: Path
) -> None:
    from kneeoa_mm.cohort.build import build_cohort
    from kneeoa_mm.cohort_spec import read_cohort_spec

    build_cohort(tables(release), tmp_path / "out", spec=read_cohort_spec("synthetic"))
    found = pd.read_csv(tmp_path / "out" / "kl_second_readings.csv")
    read = found[["knee_id", "kl_grade", "second_kl_grade"]].to_numpy().tolist()
    # 0000007: project 37 has both films of the right knee, so it is kept; 15 and 42 read it, too
    assert read == [
        ["synthetic:0000007:0:L", 1, 1],
        ["synthetic:0000007:48:L", 1, 2],
        ["synthetic:0000007:0:R", 2, 2],
        ["synthetic:0000007:48:R", 3, 1],
    ]


def test_the_most_script_runs_on_a_release_of_six(
    most_release: dict[str, str], tables: Write, tmp_path: Path
) -> None:
    _analyse("most", tables(most_release), tmp_path / "out")
    incidence = pd.read_csv(tmp_path / "out" / "incidence_by_kl.csv")
    assert set(incidence["outcome"]) == {"kl_progression", "tkr"}
    # found at a visit: replacement lies between visits, too, and of MB00006, found dead at 30
    # months, nobody knows whether the knee was replaced since its last film at 15
    used = incidence.groupby("outcome")["estimator"].agg(set)
    assert used.to_dict() == {"kl_progression": {"turnbull"}, "tkr": {"turnbull"}}
    assert incidence.loc[incidence["incidence"].isna(), "reason"].notna().all()
    horizons = {
        outcome: json.loads(
            (tmp_path / "out" / "survival" / outcome / "survival.json").read_text()
        )["provenance"]["horizon_months"]
        for outcome in ("kl_progression", "tkr")
    }
    assert horizons == {"kl_progression": 60, "tkr": 84}
    report([tmp_path / "out"], tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "What could not be computed" in page
    # neither widths nor pain are mapped
    assert "survival jsl_48m" in page
    assert "survival pain_progression" in page


@pytest.mark.real_data
def test_the_script_of_the_graded_collection_gives_the_risk_of_each_grade(
    real_data: Path, tmp_path: Path
) -> None:
    """The whole table; the images, which nobody opens here, stand as empty files."""
    table = pd.read_csv(real_data / "kl_time_to_progression.csv")
    folder = tmp_path / "collection"
    for place in table["path"]:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(place)
    table.to_csv(folder / "kl_time_to_progression.csv", index=False)
    _analyse("mendeley", folder, tmp_path / "out")
    incidence = pd.read_csv(tmp_path / "out" / "incidence_by_kl.csv")
    at_48 = incidence[incidence["months"] == 48].set_index("kl_grade")["incidence"]
    assert at_48.round(3).to_dict() == {0: 0.045, 1: 0.202, 2: 0.169, 3: 0.254}
    models = pd.read_csv(tmp_path / "out" / "models.csv").set_index(["model", "metric"])
    assert models.loc[("kl_grade", "uno_c"), "ci_low"] > 0.6


@pytest.mark.parametrize("cohort", ["mendeley", "most", "oai", "synthetic"])
def test_each_script_says_what_it_wants(
    cohort: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = str(shipped("cohorts") / cohort / "analyse.py")
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit):
        runpy.run_path(script, run_name="__main__")
    told = capsys.readouterr().out
    assert "--out" in told
    assert "NAME=RUN" in told
    assert "--folds" in told
    assert "--seed" in told


def test_a_script_says_what_is_wrong_with_its_input_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = str(shipped("cohorts") / "oai" / "analyse.py")
    asked = [script, str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", asked)
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(script, run_name="__main__")
    assert stopped.value.code == 3
    assert str(tmp_path / "nowhere") in capsys.readouterr().err
