"""The settings under which numbers repeat. Import before a kernel is started.

Nothing here overrides what the caller has set, so the whole suite can be run with
one thread or with oneDNN: ``TF_ENABLE_ONEDNN_OPTS=1 make test``.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

SETTINGS = {
    # oneDNN picks its kernels by processor, which moves the last digits
    "TF_ENABLE_ONEDNN_OPTS": "0",
    # so does the way a sum is split over threads
    "TF_NUM_INTRAOP_THREADS": "2",
    "TF_NUM_INTEROP_THREADS": "2",
    "OMP_NUM_THREADS": "2",
    # NumPy's threads wait for each other at full speed: on busy cores one is faster
    "OPENBLAS_NUM_THREADS": "1",
    # no messages from TensorFlow's start and no progress bars in stored outputs
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TQDM_DISABLE": "1",
    # the reader's own start-up files have no say in what the book shows
    "IPYTHONDIR": str(ROOT / "_build" / "ipython"),
    # Debian's frozen standard library would otherwise warn about the debugger
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
}

for name, value in SETTINGS.items():
    os.environ.setdefault(name, value)
Path(os.environ["IPYTHONDIR"]).mkdir(parents=True, exist_ok=True)
