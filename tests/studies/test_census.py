"""The census counts what it says: digits, partners, twins and their distances."""

import json
from importlib.metadata import version

import numpy as np
import pytest

from netinvert import fibers
from netinvert.data import checksum_of, load_mnist
from netinvert.models import pretrained
from netinvert.studies import census

FACTS = json.loads(census.PROVENANCE.read_text())


@pytest.fixture(scope="module")
def afresh():
    return census.census(2, progress=False)


def test_a_partner_is_the_next_digit_of_another_class():
    labels = np.array([3, 3, 5, 5, 3, 1])
    assert census.partners(labels, 4).tolist() == [2, 2, 4, 4]
    (_, _), (_, y_test) = load_mnist()
    partners = census.partners(y_test, 500)
    assert (y_test[partners] != y_test[:500]).all() and (partners > range(500)).all()


def test_the_shipped_results_are_about_500_digits_and_say_how_they_were_made():
    table = census.results()
    assert {len(column) for column in table.values()} == {500}
    assert FACTS["digits"] == 500 and FACTS["network"] == census.fingerprint_of("mlp")
    assert checksum_of("evaluator.npz") in FACTS["evaluator"]
    assert {"numpy", "scipy", "python", "command"} <= set(FACTS)
    for name in ("collision", "metamer"):
        assert (table[f"{name}_distance"] < table["pair"]).all()
        assert set(table[f"{name}_called"]) <= set(range(10))
        assert table[f"{name}_seconds"].shape == (500, 2)
    assert (table["metamer_distance"] < table["collision_distance"]).all()


def test_a_census_names_the_versions_of_what_it_is_made_with():
    facts = census.provenance(2)
    assert set(FACTS) - {"machine"} <= set(facts)
    for name in ("clarabel", "python-flint", "scipy"):
        assert facts[name] == version(name)


def test_the_shipped_results_are_what_comes_out_again(afresh):
    table = census.results()
    for name in ("pair", "collision_distance", "metamer_distance"):
        np.testing.assert_allclose(afresh[name], table[name][:2], rtol=1e-4)
    for name in ("collision_called", "metamer_called"):
        np.testing.assert_array_equal(afresh[name], table[name][:2])


def test_the_distances_are_those_of_the_twins(afresh):
    (_, _), (x_test, y_test) = load_mnist()
    wanted = x_test[census.partners(y_test, 1)[0]]
    twin = fibers.metamer(pretrained("mlp"), x_test[0], wanted).inputs[1]
    expected = np.sqrt(((twin - wanted) ** 2).sum())
    np.testing.assert_allclose(afresh["metamer_distance"][0], expected, rtol=1e-6)
    expected = np.sqrt(((x_test[0] - wanted) ** 2).sum())
    np.testing.assert_allclose(afresh["pair"][0], expected, rtol=1e-6)


def test_a_claim_that_is_refused_stops_the_census(monkeypatch):
    def refused(*_):
        raise census.certificates.Refused("no")

    monkeypatch.setattr(census.certificates, "verify", refused)
    with pytest.raises(census.certificates.Refused):
        census.census(1, progress=False)


def test_the_bars_stay_away_when_the_environment_asks_for_it(capfd, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    census.census(1)
    assert capfd.readouterr().err == ""
