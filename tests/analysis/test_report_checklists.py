"""The guidelines in a report: whole, filled from runs alone, and the rest left to the author."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from report_runs import Page

from kneeoa_mm.analysis.evaluation import evaluate
from kneeoa_mm.analysis.report import checklists, report
from kneeoa_mm.analysis.report.checklists import AUTHOR, FROM_RUNS, IN_PART, filled_checklists
from kneeoa_mm.analysis.report.evaluation import evaluation_section
from kneeoa_mm.analysis.report.page import KINDS
from kneeoa_mm.analysis.report.parts import Section
from kneeoa_mm.analysis.report.runs import Run, find_runs
from kneeoa_mm.schemas import PREDICTIONS
from kneeoa_mm.tables import write_table

GUIDELINES = sorted(Path(checklists.__file__).with_name("guidelines").glob("*.yaml"))


def items(name: str) -> list[dict]:
    (path,) = [path for path in GUIDELINES if path.stem == name]
    return yaml.safe_load(path.read_text(encoding="utf-8"))["items"]


def test_tripod_ai_has_its_27_items_and_52_subitems():
    """Collins et al. 2024, BMJ 385:e078378: 27 main items, 52 with their parts; 18 has six."""
    numbers = [item["number"] for item in items("tripod_ai")]
    assert len(numbers) == len(set(numbers)) == 52
    main = [int(number.rstrip("abcdefg")) for number in numbers]
    assert sorted(set(main)) == list(range(1, 28))
    assert main == sorted(main)
    assert main.count(12) == 7
    assert main.count(18) == 6


def test_claim_has_its_44_items():
    """Tejani et al. 2024, Radiol Artif Intell 6(4):e240300: the update has 44 items."""
    assert [int(item["number"]) for item in items("claim")] == list(range(1, 45))


def test_probast_ai_has_16_questions_on_development_and_18_on_evaluation():
    """Moons et al. 2025, BMJ 388:e082505: four domains in each part."""
    numbers = [item["number"] for item in items("probast_ai")]
    assert len(set(numbers)) == len(numbers)
    development = [number for number in numbers if number.startswith("D")]
    evaluation = [number for number in numbers if number.startswith("E")]
    assert (len(development), len(evaluation)) == (16, 18)
    assert {number[1] for number in development} == {number[1] for number in evaluation}
    assert {number[1] for number in evaluation} == set("1234")


@pytest.fixture(scope="module")
def sections(runs) -> list[Section]:
    found = find_runs(
        [runs, runs / "hostile.csv"], {k.command: k.files for k in KINDS}, predictions="predict"
    )
    return [kind.read(run) for kind in KINDS for run in found[kind.command]]


def test_every_fact_that_runs_tell_is_one_that_a_guideline_asks_for(sections):
    asked = {fact for path in GUIDELINES for i in items(path.stem) for fact in i.get("facts", ())}
    told = {fact for section in sections for fact in section.facts}
    assert told <= asked
    # these runs lack a pre-specification, a held-out part, another cohort, subgroups and readers
    rare = {"prespecified", "looks", "external", "case_mix", "updating", "subgroups", "readers"}
    assert {fact for fact in asked - told if fact.split(".")[1] not in rare} <= {
        "report.limits",
        "survival.prognosis",
    }


def test_without_runs_every_item_is_the_authors():
    for checklist in filled_checklists([], []):
        assert {row.status for row in checklist.rows} == {AUTHOR}
        assert not any(row.answer or row.found for row in checklist.rows)


def test_an_item_says_where_in_a_run_its_answer_stands(sections):
    tripod = filled_checklists(sections, ["a limit"])[0]
    by_number = {row.number: row for row in tripod.rows}
    assert by_number["6b"].status == FROM_RUNS
    assert by_number["6b"].found[0].where.endswith("/cohort/attrition.csv")
    assert by_number["5a"].status == IN_PART
    assert by_number["5a"].author
    assert by_number["17"].status == AUTHOR


def test_a_signalling_question_is_answered_only_where_all_its_facts_are_known():
    partly = Section("training", "Training", "run")
    partly.tell("disjoint", "no person in two parts", "model.json")
    probast = filled_checklists([partly], [])[2]
    (leakage,) = [row for row in probast.rows if row.number == "E4.5"]
    assert (leakage.answer, leakage.status) == ("", IN_PART)
    judged = Section("evaluation", "Evaluation", "run")
    judged.tell("unseen", "left out", "metrics.json")
    probast = filled_checklists([partly, judged], [])[2]
    (leakage,) = [row for row in probast.rows if row.number == "E4.5"]
    assert (leakage.answer, leakage.status) == ("Y", FROM_RUNS)


def test_persons_on_whom_epochs_were_chosen_do_not_count_as_unseen(make_predictions, tmp_path):
    table = make_predictions(20)
    for part in ("out of fold", "validation, used to choose epochs"):
        path = tmp_path / part / "predictions.parquet"
        write_table(table, PREDICTIONS, path, extra={"part": part})
        evaluate(path, tmp_path / part / "evaluation", n_boot=5)
        section = evaluation_section(Run(tmp_path / part / "evaluation", "run"))
        is_unseen = part == "out of fold"
        assert ("evaluation.unseen" in section.facts) == is_unseen
        assert any("flatters" in limit for limit in section.limits) != is_unseen


def test_the_page_counts_what_is_left_to_the_author(runs, tmp_path):
    report([runs / "evaluation"], tmp_path / "r.html")
    text = Page(tmp_path / "r.html").text
    assert "52 items:" in text
    assert "44 items:" in text
    assert "34 items:" in text
    assert "Or add a run of cohort" in text
