"""What cannot be known: other inputs with exactly the same output, and their proofs."""

from netinvert.fibers.layers import layers_of
from netinvert.fibers.ledger import Ledger, ledger
from netinvert.fibers.polytope import Infeasible
from netinvert.fibers.twins import collision, fibre, metamer, samples, split, widths

__all__ = [
    "Infeasible",
    "Ledger",
    "collision",
    "fibre",
    "layers_of",
    "ledger",
    "metamer",
    "samples",
    "split",
    "widths",
]
