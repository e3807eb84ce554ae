"""Mask auto-labeling: masks learned from boxes, and how much accuracy they keep."""

import os

__version__ = "0.1.0"

# GNU OpenMP, which torch brings along, reads this when torch is loaded. By default a thread that waits for the others
# spins 300,000 times, milliseconds, before it sleeps; beside other work it holds the core that the others need. A step
# of segmenter=mask_rcnn_tiny, .14 s on two idle cores, took 1.1 to 5.6 s beside other work on one of them, and takes
# .6 s with this. With 0 it took .3 s, but a tenth longer than by default on idle cores.
if not os.environ.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
    os.environ["GOMP_SPINCOUNT"] = "10000"
