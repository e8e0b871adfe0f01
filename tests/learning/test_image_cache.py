"""Prepared images outlive an interruption; nobody meets those of other files or half of them."""

import copy
import errno
import os
from collections import namedtuple

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from kneeoa_mm.errors import KneeOAError
from kneeoa_mm.learning import image_cache
from kneeoa_mm.learning.dataset import load_images
from kneeoa_mm.learning.framing import Framing
from kneeoa_mm.learning.image_store import ImageStore
from kneeoa_mm.learning.job import Job
from kneeoa_mm.learning.losses import GradeLoss
from kneeoa_mm.learning.networks import KLNetwork
from kneeoa_mm.learning.pretrain_kl import score_grades
from kneeoa_mm.model_folder import Preprocessing
from kneeoa_mm.settings import TrainConfig

CONTRACT = Preprocessing(
    image_size_px=32, mean=0.5, std=0.5, clip_percentiles=(0, 100), reinvert_negatives=True
)

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def knees(tmp_path, knee_of_grade):
    """Two knees and a file that is no image."""
    generator = np.random.default_rng(0)
    paths = [tmp_path / name for name in ("a.png", "bad.png", "b.png")]
    for grade, path in enumerate(paths):
        Image.fromarray(knee_of_grade(grade, generator)).save(path)
    paths[1].write_bytes(b"no image")
    unknown = {"mirror": False, "field_of_view_plateau_widths": np.nan}
    return pd.DataFrame({"image_path": [str(path) for path in paths]} | unknown)


def test_a_second_store_finds_all_that_the_first_one_read(knees, tmp_path, monkeypatch):
    in_memory, first = ImageStore(knees), ImageStore(knees, cache=tmp_path / "cache")
    images = first.get(CONTRACT)
    assert torch.equal(images, in_memory.get(CONTRACT))

    def fail(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(image_cache, "load_images", fail)
    second = ImageStore(knees, cache=tmp_path / "cache")
    assert torch.equal(second.get(CONTRACT), images)
    assert second.framing == in_memory.framing == (Framing.WHOLE, None, Framing.WHOLE)
    assert second.rejects == in_memory.rejects
    assert [reject.source for reject in second.rejects] == ["bad.png"]
    assert second.readable.tolist() == [True, False, True]


@pytest.mark.parametrize("what", ["file", "contract", "orientation"])
def test_what_changed_is_read_anew(knees, tmp_path, what, knee_of_grade):
    ImageStore(knees, cache=tmp_path / "cache").get(CONTRACT)
    contract = CONTRACT
    if what == "file":
        changed = knee_of_grade(4, np.random.default_rng(1))
        Image.fromarray(changed).save(knees["image_path"][0])
    elif what == "contract":
        contract = CONTRACT.model_copy(update={"clip_percentiles": (5, 95)})
    else:
        knees["mirror"] = True
    cached = ImageStore(knees, cache=tmp_path / "cache").get(contract)
    assert torch.equal(cached, ImageStore(knees).get(contract))
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 2


def test_an_interruption_leaves_no_half_read_images(knees, tmp_path, monkeypatch):
    class Interrupted(BaseException):
        pass

    def interrupt(knees, contract, pixels):
        pixels[0] = 255
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(image_cache, "load_images", interrupt)
        with pytest.raises(Interrupted):
            ImageStore(knees, cache=tmp_path / "cache").get(CONTRACT)
    assert list((tmp_path / "cache").iterdir()) == []
    again = ImageStore(knees, cache=tmp_path / "cache").get(CONTRACT)
    assert torch.equal(again, ImageStore(knees).get(CONTRACT))


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system reserves no room")
def test_room_is_taken_before_the_first_image_is_read(knees, tmp_path, monkeypatch):
    """A mapped file grows as it is written to; where the disk is full then, the process dies."""
    taken = []

    def look(knees, contract, pixels):
        (file,) = (tmp_path / "cache").iterdir()
        taken.append(file.stat().st_blocks * 512 >= pixels.nbytes)
        return load_images(knees, contract, pixels)

    monkeypatch.setattr(image_cache, "load_images", look)
    ImageStore(knees, cache=tmp_path / "cache").get(CONTRACT)
    assert taken == [True]


def refuse_room(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("function", "says"),
    [("shutil.disk_usage", lambda _: Usage(9, 9, 9)), ("os.posix_fallocate", refuse_room)],
)
def test_a_full_disk_is_told_with_what_is_needed_and_where(
    knees, tmp_path, monkeypatch, function, says
):
    monkeypatch.setattr(function, says, raising=False)
    large = CONTRACT.model_copy(update={"image_size_px": 1000})  # three of a million bytes
    with pytest.raises(KneeOAError, match=r"not enough room(.|\n)*0\.003 GB(.|\n)* free") as told:
        ImageStore(knees, cache=tmp_path / "cache").get(large)
    assert str(tmp_path / "cache") in str(told.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_changes_images_in_memory_does_not_reach_their_file(knees, tmp_path):
    images = ImageStore(knees, cache=tmp_path / "cache").get(CONTRACT)
    before = images.clone()
    images.zero_()
    assert torch.equal(ImageStore(knees, cache=tmp_path / "cache").get(CONTRACT), before)


def test_a_job_travels_to_another_process_without_its_images(knees, tmp_path):
    store = ImageStore(knees, cache=tmp_path / "cache")
    images, target = store.get(CONTRACT), torch.eye(5)[:3]
    job = Job(
        name="job",
        network=KLNetwork("simple_cnn"),
        arrays={"images": images, "kl_target": target},
        train_rows=np.arange(3),
        val_rows=np.arange(0),
        contract=CONTRACT,
        config=TrainConfig(),
        loss=GradeLoss(),
        score=score_grades,
        seed=(0,),
        image_file=store.files[CONTRACT],
    )
    assert list(job.__getstate__()["arrays"]) == ["kl_target"]
    arrived = copy.copy(job)
    assert torch.equal(arrived.arrays["images"], images)
    assert torch.equal(arrived.arrays["kl_target"], target)
