"""What cannot be known: other inputs with exactly the same output, and their proofs."""

from netinvert.fibers.ledger import Ledger, ledger
from netinvert.fibers.polytope import Infeasible
from netinvert.fibers.reading import layers_of
from netinvert.fibers.twins import collision, fiber, metamer, samples, split, widths

# fmt: off
__all__ = [
    "Infeasible", "Ledger", "collision", "fiber", "layers_of", "ledger", "metamer",
    "samples", "split", "widths",
]
