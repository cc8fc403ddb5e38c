"""Head to head: every method on the same images, by ``python -m netinvert.benchmark``.

Without options this is a small run of under a minute; ``--full`` makes the results
that the book shows. What is done stays in the folder ``--out``, one file for each
network, training seed, tap, method and number of pairs: a run that was interrupted
goes on where it stopped, and two runs at once share the work.

Each method chooses its settings on images that are never reported. Costs are in
processor seconds, over all cores, which hardly depend on what else a computer does;
the yardstick beside them is the network's own forward pass.
"""

from netinvert.benchmark.results import load, load_provenance, load_values
from netinvert.benchmark.statistics import interval

__all__ = ["interval", "load", "load_provenance", "load_values"]
