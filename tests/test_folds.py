"""Folds never split a person, do not depend on the order of rows, and refuse the impossible."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kneeoa_mm.errors import InputError, LeakError
from kneeoa_mm.folds import folds_of, hold_out, make_folds, refuse_shared_subjects


def cohort(n_subjects, seed):
    """Two knees a subject, with grades that resemble each other."""
    generator = np.random.default_rng(seed)
    subjects = np.repeat([f"s{i:04d}" for i in range(n_subjects)], 2)
    grades = np.repeat(generator.integers(0, 5, n_subjects), 2)
    return subjects, grades


@settings(max_examples=25)
@given(st.integers(10, 60), st.integers(2, 5), st.integers(0, 2**31))
def test_each_subject_is_in_one_fold_and_no_fold_is_empty(n_subjects, n_folds, seed):
    subjects, grades = cohort(n_subjects, seed)
    folds = make_folds(subjects, grades, n_folds=n_folds, seed=seed)
    assert sorted(folds["subject_id"]) == sorted(set(subjects))
    assert set(folds["fold"]) == set(range(n_folds))


@settings(max_examples=15)
@given(st.permutations(range(40)))
def test_the_order_of_rows_does_not_matter(order):
    subjects, grades = cohort(20, seed=3)
    order = np.array(order)
    shuffled = make_folds(subjects[order], grades[order], n_folds=4, seed=1)
    pd.testing.assert_frame_equal(shuffled, make_folds(subjects, grades, n_folds=4, seed=1))


def test_strata_are_spread_evenly():
    subjects, _ = cohort(200, seed=0)
    events = np.repeat(np.arange(200) % 5 == 0, 2)
    folds = make_folds(subjects, events, n_folds=5, seed=0)
    counts = np.bincount(folds_of(subjects, folds)[events], minlength=5)
    assert counts.max() - counts.min() <= 4, "80 event knees over 5 folds of about 16"


def test_missing_and_rare_labels_are_no_obstacle():
    labels = [None] * 10 + [1.0] * 9 + [4.0]
    folds = make_folds([f"s{i}" for i in range(20)], labels, n_folds=5, seed=0)
    assert folds["fold"].nunique() == 5


def test_too_few_subjects_are_refused_with_the_numbers():
    with pytest.raises(InputError, match="at least 3 subjects for 3 folds"):
        make_folds(["a", "a", "b"], [0, 1, 0], n_folds=3, seed=0)


@pytest.mark.parametrize("fraction", [0.05, 0.15, 0.2, 0.3, 0.4, 0.47])
def test_held_out_subjects_are_about_the_fraction(fraction):
    subjects, grades = cohort(200, seed=1)
    held = hold_out(subjects, grades, fraction=fraction, seed=0)
    assert len(held) / 200 == pytest.approx(fraction, abs=0.04)


def test_few_subjects_can_be_held_out_too():
    assert len(hold_out(list("abcd"), [0, 1, 0, 1], fraction=0.3, seed=0)) in {1, 2}


def test_a_subject_without_a_fold_is_named():
    folds = pd.DataFrame({"subject_id": ["a"], "fold": [0]})
    with pytest.raises(InputError, match="1 without, such as b"):
        folds_of(["a", "b"], folds)


def test_a_subject_in_two_parts_is_named_with_the_parts():
    with pytest.raises(LeakError, match="1 in both train and val: b"):
        refuse_shared_subjects({"train": ["a", "b"], "val": ["b", "c"], "test": ["d"]})
    refuse_shared_subjects({"train": ["a"], "val": ["b"]})
