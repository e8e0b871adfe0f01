"""What a comparison says that a run was given."""

import numpy as np
from known_runs import Study, image_risk, two_knees_a_person

from kneeoa_mm.records import Outcome
from kneeoa_mm.workflows.compared_runs import read_run


def test_without_a_reading_means_without_any_reading_of_either_knee(tmp_path):
    """The network takes every reading from that branch, not only the grade of the knee itself."""
    study = Study(tmp_path, two_knees_a_person(20, seed=0))
    study.knees["contralateral_kl_grade"] = np.arange(len(study.knees)) % 4
    events = study.knees["jsl_48m"].to_numpy()
    run = study.run(
        "run",
        image_risk(events, seed=1),
        factors=("age_years", "contralateral_kl_grade", "mjsw_medial_mm"),
        columns={"jsl_48m_prob_without_reading": image_risk(events, seed=2)},
        config="kl_input: read\n",
    )
    fold_of = study.folds().set_index("subject_id")["fold"]
    found = read_run("run", run, Outcome.JSL_48M, fold_of)
    assert found["run"].inputs == (
        "image, KL grade as read, age_years, mjsw_medial_mm, contralateral_kl_grade"
    )
    without = found["run_without_reading"]
    assert without.inputs == "image, age_years, no reading of either knee"
    assert without.factors == ("age_years",)
