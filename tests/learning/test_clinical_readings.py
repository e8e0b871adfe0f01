"""What a person made of a film is a reading, whichever column it is, and stays one."""

import numpy as np
import pandas as pd

from kneeoa_mm.learning.clinical import ClinicalEncoding
from kneeoa_mm.workflows.compared_runs import BASELINE

READ = ("kl_grade", "contralateral_kl_grade", "oarsi_jsn_medial", "oarsi_jsn_lateral")


def knees(n, seed=0):
    """Every reading follows the age closely, so that either would foretell the other."""
    rng = np.random.default_rng(seed)
    age = rng.normal(60, 10, n)
    grade = np.clip(np.round((age - 40) / 10), 0, 3).astype(int)
    return pd.DataFrame(
        {
            "mjsw_medial_mm": 8 - age / 12,
            "age_years": age,
            **dict.fromkeys(READ, grade),
            "lateral_predominant": (grade > 1).astype(int),
            "sex": rng.choice(["F", "M"], n),
        }
    )


def test_every_reading_of_a_film_is_kept_from_the_branch_without_one():
    """By hand: of the columns, those of age (2) and sex (3) alone are none of a reading."""
    encoding = ClinicalEncoding.fit(knees(200))
    unread = set(range(encoding.n_features)) - set(encoding.reading_columns)
    columns = encoding.columns
    assert unread == {*columns["age_years"], *columns["sex"]}
    assert len(unread) == 5
    films = ("kl", "jsn", "jsw", "predominant")
    of_films = {name for name in BASELINE if any(word in name for word in films)}
    assert of_films == set(encoding.factors) - {"age_years", "sex"}, "no other is allowed"


def test_no_reading_is_imputed_or_foretells_another_factor():
    """A knee of the greatest grade has no age: the age that is expected must not know it."""
    encoding = ClinicalEncoding.fit(knees(500))
    asked = knees(3, seed=1).assign(sex="F")
    least, most = dict.fromkeys(READ, 0), dict.fromkeys(READ, 3)
    asked.loc[0, [*least, "mjsw_medial_mm"]] = [*least.values(), 5.0]
    asked.loc[1, [*most, "mjsw_medial_mm"]] = [*most.values(), 1.0]
    asked.loc[2, [*READ, "lateral_predominant", "mjsw_medial_mm"]] = np.nan
    narrow = encoding.transform(asked.assign(age_years=np.nan))
    age = encoding.columns["age_years"]
    np.testing.assert_array_equal(narrow[0, age], narrow[1, age])
    np.testing.assert_array_equal(narrow[0, age], narrow[2, age])
    told = encoding.transform(asked)
    for name in (*READ, "lateral_predominant", "mjsw_medial_mm"):
        *values, is_missing = encoding.columns[name]
        assert told[2, is_missing] == 1
        assert not told[2, values].any(), f"{name} is neither imputed from age nor from sex"


def test_a_width_is_standardised_by_what_the_training_knees_had():
    encoding = ClinicalEncoding.fit(pd.DataFrame({"mjsw_medial_mm": [2.0, 4.0, None]}))
    encoded = encoding.transform(pd.DataFrame({"mjsw_medial_mm": [5.0, None]}))
    assert encoded.tolist() == [[2.0, 0.0], [0.0, 1.0]], "(5 - 3) / 1, and an indicator"
    drawn = encoding.draw(pd.DataFrame({"mjsw_medial_mm": [5.0]}), np.random.default_rng(0))
    assert drawn.tolist() == [[2.0, 0.0]]
