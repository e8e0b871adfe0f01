"""A report's runs, made up, some of them with hostile texts; and the page as a parser sees it."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
from PIL import Image

from kneeoa_mm.analysis.evaluation import evaluate
from kneeoa_mm.analysis.survival import survive
from kneeoa_mm.schemas import COHORT, KNEES, PREDICTIONS
from kneeoa_mm.tables import write_table

MakeTable = Callable[..., pd.DataFrame]
EVIL = "<script>alert(1)</script>"
_CARD = {
    "package_version": "0.1.0",
    "software": {"torch": "2.15.0"},
    "kind": "kl",
    "fold": 0,
    "architecture": {"backbone": EVIL, "head": "softmax"},
    "outputs": ["kl_prob_0"],
    "preprocessing": {"image_size_px": 96},
    "clinical": {"continuous": {"age_years": [60, 8]}, "categorical": {"sex": ["F", "M"]}},
    "seen_subjects": {"salt": "00", "training": ["aa", "bb"], "selection": []},
    "metrics": {"epoch": 3.0, "loss": 1.0, "qwk": 0.8},
    "weights_source": EVIL,
    "weights_sha256": "c0ffee" * 10,
    "licence": "Apache-2.0",
    "config_digest": "d1ce",
}
_TRAINING = f"""seed: 7
note: {EVIL}
dropout: 0.2
balance: none
train: {{optimiser: adamw, lr: 0.001, weight_decay: 0.1, batch_size: 8, epochs: 3,
  kl_loss: cross_entropy, select_by: loss, patience: 3, augment: {{rotation_deg: 10.0}}}}
"""
_COHORT = f"""ids: hashed
seed: 3
cohort: {{name: "{EVIL}", sampled_on_outcome: false,
  outcomes: {{jsl_threshold_mm: 0.7, kl_horizon_months: 48, tkr_horizon_months: 96}}}}
"""


class Page(HTMLParser):
    """Tags, attributes and visible text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self._hidden = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self._hidden = tag == "style"

    def handle_endtag(self, tag):
        self._hidden = False

    def handle_data(self, data):
        if not self._hidden:
            self.text += " " + " ".join(data.split())

    def pictures(self) -> list[str]:
        return [value for tag, name, value in self.attributes if (tag, name) == ("img", "src")]


def make_runs(root: Path, make_cohort: MakeTable, make_predictions: MakeTable) -> Path:
    """A folder with one run of each kind."""
    _make_cohort(root / "cohort", make_cohort())
    _make_films(root / "knees", make_cohort())
    _make_training(root / "runs" / "kl")
    predictions = make_predictions()
    source = write_table(predictions, PREDICTIONS, root / "predictions.parquet")
    write_table(predictions, PREDICTIONS, root / "hostile.csv")
    evaluate(source, root / "evaluation", n_boot=20)
    survive(root / "cohort", root / "survival", outcome="tkr", n_boot=20)
    _make_comparison(root / "comparison")
    _make_saliency(root / "saliency", list(predictions["knee_id"][:6]))
    return root


def _make_cohort(folder: Path, cohort: pd.DataFrame) -> None:
    cohort["race"] = cohort["race"].replace("Asian", EVIL)
    cohort["site"] = "A"
    write_table(cohort, COHORT, folder / "cohort.parquet", config_digest="abc123")
    (folder / "attrition.csv").write_text(
        "flow,kind,step,knees,subjects\n"
        f"cohort,start,enrolled,300,150\ncohort,removed,{EVIL},60,30\ncohort,left,left,240,120\n"
        "jsl_48m,start,in,240,120\njsl_48m,removed,lost,40,20\njsl_48m,left,has a value,200,100\n"
        "jsl_48m,event,value is 1,50,30\n"
    )
    (folder / "sensitivity.csv").write_text(
        f"outcome,variant,knees,events,risk\njsl_48m,{EVIL},200,50,0.25\n"
    )
    (folder / "config.yaml").write_text(_COHORT)


def _make_films(folder: Path, cohort: pd.DataFrame) -> None:
    knees = cohort[["knee_id", "subject_id", "laterality"]].assign(
        image_path="images/a.png", spacing_source="DETECTOR", qc_flags="rotated"
    )
    write_table(knees, KNEES, folder / "knees.parquet")
    (folder / "rejects.csv").write_text(
        f"source,stage,code,message\na,decode,E_TRUNCATED,m\nb,{EVIL},E_NO_JOINT,m\n"
    )
    (folder / "config.yaml").write_text("crop_mm: 140.0\ndetector: profile\n")
    (folder / "qc").mkdir()
    Image.new("L", (300, 200), 90).save(folder / "qc" / "contact_sheet.png")


def _make_training(folder: Path) -> None:
    for fold in (0, 1):
        member = folder / "members" / f"0{fold}-net"
        member.mkdir(parents=True)
        (member / "model.json").write_text(json.dumps({**_CARD, "fold": fold}))
    (folder / "config.yaml").write_text(_TRAINING)
    (folder / "history.csv").write_text("member,epoch\n00-net,1\n")
    ensemble = {"voting": "mix", "temperature": 0.8, "calibrated_on": "out of fold"}
    (folder / "ensemble.json").write_text(json.dumps(ensemble))
    Image.new("RGB", (200, 100)).save(folder / "history.png")


def _make_comparison(folder: Path) -> None:
    folder.mkdir()
    estimate = {"value": 0.71234, "ci_low": 0.65, "ci_high": 0.77, "n": 90}
    undefined = {"value": None, "ci_low": None, "ci_high": None, "n": 90, "reason": "no " + EVIL}
    document = {
        "outcome": "jsl_48m",
        "n": 90,
        "events": 30,
        "verdict": [EVIL],
        "inputs": {"image": EVIL},
        "models": {"image": {"auroc": estimate}, "fused": {"auroc": undefined}, EVIL: {}},
        "differences": {"fused-image": {"auroc": estimate}},
        "best_possible": {"image": 0.7, "clinical": 0.66, "both": 0.78, "how": "text"},
    }
    (folder / "compare.json").write_text(json.dumps(document))


def _make_saliency(folder: Path, knees: list[str]) -> None:
    (folder / "images").mkdir(parents=True)
    rows = ["knee_id,image,member,target,method,status,kl_grade_pred,risk"]
    for place, knee in enumerate(knees):
        Image.new("RGB", (60, 40), (40 * place, 0, 0)).save(folder / "images" / f"{place}.png")
        rows.append(f"{knee},images/{place}.png,m,kl_grade_2,gradcam,ok,2,")
    rows.append(f"{EVIL},images/0.png,m,kl_grade_2,gradcam,zero,2,")
    (folder / "images" / "5.png").unlink()
    (folder / "saliency.csv").write_text("\n".join(rows) + "\n")
    (folder / "faithfulness.csv").write_text(
        "method,measure,value,ci_low,ci_high,n_knees,n_persons,n_undefined,reason,meaning\n"
        f"gradcam,infidelity,0.1,0.05,0.2,6,3,0,,{EVIL}\n"
        "random_order,deletion_area,,,,0,0,6,no map defines it,lower is better\n"
    )
    (folder / "factors.csv").write_text(
        "knee_id,member,target,method,adds_up,part,log_odds\n"
        f"a,m,kl,saliency,False,picture,0.4\na,m,kl,saliency,False,{EVIL},-0.2\n"
    )
