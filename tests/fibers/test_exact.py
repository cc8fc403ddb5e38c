"""Nearly equal becomes equal, or is not handed over."""

from fractions import Fraction

import pytest

from netinvert.fibers import Infeasible, exact
from netinvert.fibers.layers import affine_steps
from tests.fibers.networks import SUM


def test_a_twin_is_looked_at_again_before_it_is_handed_over():
    whole = [exact.as_integers(affine_steps(SUM, (2,))[0])]
    half, value, bounds = Fraction(1, 2), (Fraction(1),), (0.0, 1.0)
    exact.check(whole, [half, half], value, bounds)
    for twin in ([half, half + Fraction(1, 10**40)], [Fraction(-1), Fraction(2)]):
        with pytest.raises(Infeasible, match="lies on a wall"):
            exact.check(whole, twin, value, bounds)
