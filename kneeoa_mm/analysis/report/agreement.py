"""The section on readers: how far two agree, and a model beside them."""

from __future__ import annotations

from kneeoa_mm.analysis.agreement import AGREEMENT_FILE
from kneeoa_mm.analysis.report.parts import Section, Table
from kneeoa_mm.analysis.report.plan import add_looks
from kneeoa_mm.analysis.report.runs import Run, flat_provenance, read_document
from kneeoa_mm.analysis.report.shown import bar_of, counted, tile_of, with_interval
from kneeoa_mm.analysis.report.words import METRIC_NAMES
from kneeoa_mm.analysis.results import from_json, sha256_of

_PAIRS = {
    "second_reader": "Two readers",
    "model": "Model and first reader",
    "model_with_second": "Model and second reader",
}


def agreement_section(run: Run) -> Section:
    """Kappa of two readings of the same films, and of the model with each."""
    path = run.path / AGREEMENT_FILE
    document = read_document(path)
    counts, pairs = document["counts"], document["agreement"]
    films = f"{counted(counts['films'], 'film')} of {counted(counts['persons'], 'person')}"
    section = Section(
        "agreement",
        "Readers and the model",
        run.name,
        summary=f"{films}, each read twice.",
        notes=[str(note) for note in document.get("notes", [])],
        provenance=flat_provenance(document.get("provenance", {})),
    )
    section.provenance[f"{AGREEMENT_FILE}.sha256"] = sha256_of(path)
    metrics = list(pairs["second_reader"])
    found = {
        _PAIRS[name]: [from_json(each[metric]) for metric in metrics]
        for name, each in pairs.items()
    }
    if difference := document.get("model_minus_second_reader"):
        found["Model less second reader"] = [from_json(difference[metric]) for metric in metrics]
    rows = [[name, *map(with_interval, estimates)] for name, estimates in found.items()]
    bars = [bar_of(estimates[0]) for estimates in found.values()]
    columns = ["Pair", *(METRIC_NAMES[metric] for metric in metrics)]
    caption = "Agreement on KL grades, with 95 % intervals that count persons."
    section.tables.append(Table(caption, columns, rows, bars))
    kappa = tile_of("Two readers: quadratic weighted kappa", found[_PAIRS["second_reader"]][0])
    section.headline.append(kappa)
    text = f"{films} were read twice; weighted kappa {kappa.value} ({kappa.detail})"
    section.tell("readers", text, AGREEMENT_FILE)
    section.methods.append(f"{text}.")
    add_looks(section, document, AGREEMENT_FILE)
    return section
