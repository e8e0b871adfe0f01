"""Networks are trained in numbers that the device computes in, and a run stays with its own."""

import pandas as pd
import pytest
import torch

from kneeoa_mm.config import load_config
from kneeoa_mm.errors import ConfigError
from kneeoa_mm.learning import training
from kneeoa_mm.learning.precision import check_precision, choose_precision
from kneeoa_mm.learning.pretrain_kl import pretrain_kl
from kneeoa_mm.settings import PretrainKLConfig


@pytest.fixture
def processor(monkeypatch):
    """Make the CPU one that computes in bfloat16, or one that does not."""

    def computes_in_bfloat16(yes):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: yes)

    return computes_in_bfloat16


@pytest.mark.parametrize(
    ("asked", "computes_in_it", "expected"),
    [
        ("auto", True, "bfloat16"),
        ("auto", False, "float32"),
        ("bfloat16", True, "bfloat16"),
        ("float32", True, "float32"),
    ],
)
def test_auto_takes_bfloat16_where_the_processor_computes_in_it(
    processor, capsys, asked, computes_in_it, expected
):
    processor(computes_in_it)
    assert choose_precision(asked, "cpu") == expected
    assert not capsys.readouterr().err


def test_an_emulated_bfloat16_is_done_as_asked_and_said_to_be_slow(processor, capsys):
    processor(False)
    assert choose_precision("bfloat16", "cpu") == "bfloat16"
    assert "--set train.precision=auto" in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["auto", "float32", "float16"])
def test_a_gpu_that_is_not_there_is_refused_before_any_work(precision, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"(?s)no GPU.*--device cpu"):
        check_precision(precision, "cuda")


def test_float16_is_for_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_precision("float16", "cuda")
    with pytest.raises(ConfigError, match="float16 needs a GPU"):
        check_precision("float16", "cpu")


class Interrupted(BaseException):
    """Stands for a kill at the end of an epoch."""


def test_a_run_goes_on_in_the_precision_that_it_was_begun_in(
    graded_folder, tmp_path, monkeypatch, processor
):
    """On another machine too, for half of a network in each would be neither."""
    small = "members=[{backbone: simple_cnn, image_size_px: 40}]"
    sets = [small, "train.precision=auto", "train.epochs=2", "train.stages.0.epochs=1"]
    config = load_config(PretrainKLConfig, sets=sets)

    def interrupt(self, trainer):
        if self._record.history:
            raise Interrupted

    processor(True)
    with monkeypatch.context() as patch:
        patch.setattr(training.Recorder, "_stop_if_stale", interrupt)
        with pytest.raises(Interrupted):
            pretrain_kl(graded_folder, tmp_path / "run", config=config, device="cpu")
    processor(False)
    pretrain_kl(graded_folder, tmp_path / "run", config=config, device="cpu", resume=True)
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert history["precision"].tolist() == ["bfloat16", "bfloat16"]
