"""Maps say which weights they are of."""

import json

from kneeoa_mm.learning.models import load_ensemble
from kneeoa_mm.learning.saliency.explain import explain
from kneeoa_mm.settings import ExplainConfig


def test_the_document_names_the_weights_of_the_members_that_spoke(folder, tmp_path):
    config = ExplainConfig(methods=("saliency",))
    explain(folder / "knees", folder / "kl", tmp_path / "out", config=config, limit=1, device="cpu")
    told = json.loads((tmp_path / "out" / "saliency.json").read_text())["members"]
    (member,) = load_ensemble(folder / "kl").members
    assert told == {"00": {"weights_sha256": member.card.weights_sha256}}
