"""Points in polytopes: nearest, and none where there is none."""

import numpy as np
import pytest
from scipy.optimize import minimize

from netinvert.fibers import Infeasible, polytope
from netinvert.fibers.polytope import Polytope


@pytest.mark.parametrize("seed", range(4))
def test_the_nearest_point_is_that_of_another_solver(seed):
    generator = np.random.default_rng(seed)
    rows, inside = generator.normal(size=(7, 9)), generator.random(9)
    equal = np.arange(7) < 3
    values = rows @ inside - np.where(equal, 0, 0.1)
    space = Polytope(rows, values, equal, 0.0, 1.0)
    target = generator.normal(size=9) * 2
    expected = minimize(
        lambda x: ((x - target) ** 2).sum(),
        inside,
        bounds=[(0, 1)] * 9,
        constraints=[
            {"type": "eq", "fun": lambda x: rows[equal] @ x - values[equal]},
            {"type": "ineq", "fun": lambda x: rows[~equal] @ x - values[~equal]},
        ],
    )
    assert expected.success
    np.testing.assert_allclose(polytope.nearest(space, target), expected.x, atol=1e-5)


def test_an_empty_polytope_is_called_empty():
    rows, values = np.array([[1.0, 1.0], [1.0, 0.0]]), np.array([1.5, 0.75])
    space = Polytope(rows, values, np.array([True, False]), 0.0, 0.7)
    with pytest.raises(Infeasible, match=r"in \[0, 0.7\] .* 1 equations and 1 ineq"):
        polytope.nearest(space, np.zeros(2))


@pytest.mark.parametrize("seed", range(4))
def test_with_many_walls_the_nearest_point_is_found_on_the_interior_path(seed):
    generator = np.random.default_rng(seed)
    rows, inside = generator.normal(size=(14, 9)), generator.random(9)
    equal = np.arange(14) < 2
    values = rows @ inside - np.where(equal, 0, generator.uniform(0, 2, 14))
    target = generator.normal(size=9) * 2
    few = Polytope(rows, values, equal, 0.0, 1.0)
    found = polytope.nearest(few, target)
    assert (rows @ found >= values - 1e-6)[~equal].all()
    np.testing.assert_allclose((rows @ found)[equal], values[equal], atol=1e-6)
    # The best point of a convex set: no other of its points lies towards the target.
    program = polytope.linear_program(few, found - target)
    assert (found - target) @ found == pytest.approx(program.fun, abs=1e-6)
    with pytest.raises(Infeasible, match="2 equations and 12 inequalities"):
        polytope.nearest(few._replace(values=values + 30), target)
    with pytest.raises(Infeasible, match="within reach"):
        polytope.nearest(few, target, np.linalg.norm(found - target) * 0.99)


def test_the_interior_path_says_none_where_there_is_no_point():
    rows, values = np.array([[1.0, 1.0], [1.0, 0.0]]), np.array([1.5, 1.0])
    space = Polytope(rows, values, np.array([True, False]), 0.0, 0.7)
    assert polytope.nearest_inside(space, np.zeros(2)) is None
    found = polytope.nearest_inside(space._replace(high=1.0), np.zeros(2))
    np.testing.assert_allclose(found, [1.0, 0.5], atol=1e-8)
