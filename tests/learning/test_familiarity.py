"""A grader tells knees from other pictures by where their features lie."""

import hashlib

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from kneeoa_mm.errors import ModelFolderError
from kneeoa_mm.learning.familiarity import FAMILIARITY_FILE, MIN_KNEES, Familiarity, fit, learn
from kneeoa_mm.learning.networks import KLNetwork
from kneeoa_mm.model_folder import Preprocessing

CONTRACT = Preprocessing(
    image_size_px=32, mean=0.5, std=0.5, clip_percentiles=(1, 99), reinvert_negatives=True
)


def features(n, width=64, seed=0, factors=6):
    """Features as a network has them: a few directions carry most, the others a little."""
    directions = np.random.default_rng(99).normal(size=(factors, width))
    generator = np.random.default_rng(seed)
    strong = generator.normal(size=(n, factors)) @ directions
    return (3 + strong + 0.2 * generator.normal(size=(n, width))).astype(np.float32)


def test_the_distance_is_what_principal_components_of_roots_leave_over():
    training, unseen = features(400), features(300, seed=1)
    known = fit(training, unseen)
    roots, others = (np.sign(x) * np.sqrt(np.abs(x)) for x in (training, unseen))
    components = PCA(n_components=32, svd_solver="full").fit(roots)
    restored = components.inverse_transform(components.transform(others))
    expected = np.linalg.norm(others - restored, axis=1)
    # directions are kept in half precision
    np.testing.assert_allclose(known.distance(unseen), expected, rtol=0.01)


def test_no_knee_that_set_the_limit_lies_beyond_it():
    for seed in range(5):
        unseen = features(250, seed=seed)
        strangeness = fit(features(300, seed=9), unseen).strangeness(unseen)
        assert 0.99 < strangeness.max() < 1


def test_new_knees_are_familiar_and_other_things_are_not():
    known = fit(features(1000), features(1000, seed=1))
    fresh = known.strangeness(features(2000, seed=2))
    assert (fresh > 1).mean() < 0.01
    other = np.random.default_rng(3).normal(3, 2, (200, 64)).astype(np.float32)
    assert (known.strangeness(other) > 1).mean() > 0.95


def test_a_folder_gives_back_what_was_written_and_a_flipped_bit_is_found(tmp_path):
    known = fit(features(300), features(300, seed=1))
    digest = known.write(tmp_path)
    path = tmp_path / FAMILIARITY_FILE
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    again = Familiarity.read(tmp_path, digest)
    np.testing.assert_array_equal(again.distance(features(9)), known.distance(features(9)))
    damaged = bytearray(path.read_bytes())
    damaged[-3] ^= 0x10
    path.write_bytes(damaged)
    with pytest.raises(ModelFolderError, match="not what the model card describes"):
        Familiarity.read(tmp_path, digest)
    path.unlink()
    with pytest.raises(ModelFolderError, match="No such file"):
        Familiarity.read(tmp_path, digest)


def test_a_file_of_the_widest_network_stays_below_300_kb(tmp_path):
    """DenseNet-161 has 2,208 features; a file grows as they do, and not with the knees."""
    sizes = []
    for n in (MIN_KNEES, 4 * MIN_KNEES):
        fit(features(n, width=138), features(n, width=138, seed=1)).write(tmp_path)
        sizes.append((tmp_path / FAMILIARITY_FILE).stat().st_size)
    assert sizes[0] == sizes[1]
    assert sizes[0] * 2208 / 138 < 300_000


@pytest.mark.parametrize(("n_training", "n_unseen"), [(MIN_KNEES - 1, 500), (500, MIN_KNEES - 1)])
def test_too_few_knees_teach_nothing(n_training, n_unseen):
    assert fit(features(n_training), features(n_unseen)) is None


def test_the_rows_that_a_network_learnt_from_make_the_cloud_and_the_others_the_limit():
    torch.manual_seed(0)
    network = KLNetwork("simple_cnn").eval()
    generator = np.random.default_rng(0)
    images = torch.from_numpy(generator.integers(0, 256, (450, 32, 32), dtype=np.uint8))
    training, unseen = np.arange(240), np.arange(240, 450)
    known = learn(network, images, CONTRACT, training=training, unseen=unseen, device="cpu")
    with torch.inference_mode():
        grey = (images.unsqueeze(1).float() / 255 - 0.5) / 0.5
        each = network.encoder(grey).numpy()
    roots = np.sign(each) * np.sqrt(np.abs(each))
    np.testing.assert_allclose(known.mean, roots[:240].mean(axis=0), rtol=1e-4, atol=1e-5)
    assert known.strangeness(each[240:]).max() == pytest.approx(1, abs=0.002)
    assert (
        learn(network, images, CONTRACT, training=training, unseen=unseen[:9], device="cpu") is None
    )
