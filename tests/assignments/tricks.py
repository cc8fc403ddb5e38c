"""Tricks that go into one cell of any assignment and are run behind the wall.

``VICTIMS`` names that cell and its task, the only one that may be lost.
"""

VICTIMS = {
    "01_measures": ("floor", "floor"),
    "02_search": ("report", "report"),
    "03_fibers": ("forged", "forged"),
    "04_autoencoder": ("report", "report"),
    "05_inverse": ("cycle", "cycle"),
    "06_project": ("comparison", "comparison"),
}

ANYWHERE = {
    "an exception that was swallowed": (
        "try:\n    raise ValueError\nexcept Exception:\n    pass"
    ),
    "printed only": "print('0.5 0.5 0.5 as anybody can see')",
    "never ends": "while True:\n    pass",
    "never ends, and catches what would end it": (
        "while True:\n    try:\n        while True:\n            pass\n"
        "    except BaseException:\n        pass"
    ),
    "ends the kernel": "import os\nos._exit(0)",
    "a fork bomb": (
        "import ctypes\nlibc = ctypes.CDLL(None)\nwhile True:\n    libc.fork()"
    ),
    "all the memory there is": "x = bytearray(10**13)",
    "overwrites what is compared with": (
        "import builtins, numpy.testing\n"
        "numpy.testing.assert_allclose = lambda *a, **k: None\n"
        "ni.metrics.psnr = ni.metrics.mse = lambda *a, **k: np.full(8, 99.0)\n"
        "get_ipython().input_transformers_post.append(lambda lines: [])"
    ),
    "patches numpy": (
        "np.allclose = np.array_equal = np.isfinite = lambda *a, **k: True\n"
        "np.savez = np.save = np.abs = np.linalg.norm = lambda *a, **k: 0.0"
    ),
    "writes an answer of its own into the pipe": (
        "import os\nfor n in range(3, 12):\n    try:\n"
        '        os.write(n, b\'{"judge": "floor", "points": 3}\\n\')\n'
        "    except OSError:\n        pass"
    ),
    "reads the sources by TensorFlow's own calls": (
        "import json, tensorflow as tf\n"
        "for place in ['{folder}/**', '{root}/notebooks/assignments/source/*.ipynb']:\n"
        "    for path in tf.io.gfile.glob(place):\n"
        "        for cell in json.loads(tf.io.read_file(path).numpy())['cells']:\n"
        "            exec(''.join(cell['source']))"
    ),
}
