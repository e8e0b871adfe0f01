"""What docs/how-to/most.md says of clinical factors is so in a release of MOST's shape."""

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from kneeoa_mm.cohort.build import build_cohort
from kneeoa_mm.cohort_spec import read_cohort_spec
from kneeoa_mm.errors import InputError
from kneeoa_mm.learning.study import factor_names
from kneeoa_mm.settings import TrainJSLConfig


@pytest.fixture
def most(
    most_release: dict[str, str], tables: Callable[[dict[str, str]], Path], tmp_path: Path
) -> pd.DataFrame:
    build_cohort(tables(most_release), tmp_path / "out", spec=read_cohort_spec("most"), folds=2)
    return pd.read_parquet(tmp_path / "out" / "cohort.parquet")


def test_the_default_factors_fail_for_want_of_two(most: pd.DataFrame) -> None:
    with pytest.raises(InputError, match=r"found: +race, fta_deg\n"):
        factor_names(TrainJSLConfig(fuse_clinical=True), most)


def test_the_documented_factors_are_there(most: pd.DataFrame, repository: Path) -> None:
    page = (repository / "docs" / "how-to" / "most.md").read_text(encoding="utf-8")
    lists = re.findall(r"clinical_factors=\[(.*?)\]", page)
    assert lists
    for names in lists:
        config = TrainJSLConfig(fuse_clinical=True, clinical_factors=tuple(names.split(",")))
        assert factor_names(config, most) == names.split(",")
