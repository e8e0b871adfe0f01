"""How the members of a run are held, and what their cards say of how they were made."""

import gc

import pytest

from kneeoa_mm.config import load_config
from kneeoa_mm.learning import members
from kneeoa_mm.learning.features import lent
from kneeoa_mm.learning.networks import KLNetwork
from kneeoa_mm.learning.pretrain_kl import pretrain_kl
from kneeoa_mm.settings import PretrainKLConfig


def test_a_library_that_is_an_extra_need_not_be_there(monkeypatch):
    monkeypatch.setattr(members, "_LIBRARIES", ("torch", "no-such-library"))
    assert set(members._software()) == {"python", "torch"}


def test_a_run_of_many_members_never_holds_many_networks(graded_folder, tmp_path, monkeypatch):
    """Eight networks in five folds would be 5 GB before the first of them learns."""

    def held():
        gc.collect()
        return sum(type(each) is KLNetwork for each in gc.get_objects())

    before, during, train = held(), [], members._train_member

    def counting(*arguments, **options):
        during.append(held() - before)
        return train(*arguments, **options)

    monkeypatch.setattr(members, "_train_member", counting)
    member = "{backbone: simple_cnn, image_size_px: 32}"
    sets = [f"members=[{member},{member}]", "cross_validate=true", "folds=3"]
    config = load_config(PretrainKLConfig, sets=[*sets, "train.epochs=1", "train.batch_size=32"])
    pretrain_kl(graded_folder, tmp_path / "run", config=config, device="cpu")
    assert len(during) == 6
    assert max(during) <= 3


class Traveller:
    """A network of which only the whereabouts matter."""

    def __init__(self):
        self.been = []

    def to(self, device=None, **_):
        self.been += [device] if device else []
        return self

    def eval(self):
        return self

    def cpu(self):
        return self.to("cpu")


def test_a_network_that_is_lent_to_a_gpu_comes_back_even_after_a_fault():
    network = Traveller()

    def fail_there():
        with lent(network, "cuda"):
            assert network.been == ["cuda"]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_there()
    assert network.been == ["cuda", "cpu"]
