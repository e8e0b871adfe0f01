"""What ``doctor`` says is there can be used."""

from importlib import metadata, util

import pytest
from packaging.requirements import Requirement

from kneeoa_mm.workflows.doctor import doctor

OURS = {"dev"}
"""Extras for people who work on the package, of whom doctor says nothing."""


def _requirements():
    """Extra and distribution, as the package declares them."""
    for extra in set(metadata.metadata("kneeoa-mm").get_all("Provides-Extra")) - OURS:
        for text in metadata.requires("kneeoa-mm"):
            requirement = Requirement(text)
            marker = requirement.marker
            if marker and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""}):
                yield extra, requirement.name


@pytest.mark.parametrize(("extra", "distribution"), sorted(_requirements()))
def test_an_extra_of_which_one_distribution_is_missing_is_not_there(
    monkeypatch, extra, distribution
):
    """Half an extra fails at the first film or model that needs the other half."""
    modules = {
        module
        for module, owners in metadata.packages_distributions().items()
        if distribution.casefold() in map(str.casefold, owners)
    }
    if not modules:
        pytest.skip(f"{distribution} is not installed here")
    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name in modules else find(name))
    assert "pip install" in doctor().figures["extras"][extra]
