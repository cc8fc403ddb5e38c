"""Hand-ins that must lose marks: what was changed, and the points that are left.

``ANYWHERE`` go into one cell of any assignment, behind the wall; ``VICTIMS`` names that
cell and its task. ``WRONG`` are mistakes and tricks of one assignment, run in process.
"""

VICTIMS = {
    "01_measures": ("floor", "floor"),
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

WRONG = {
    "01_measures": {
        "mean of the batch": (
            {"psnr": ("axis=(1, 2, 3)", "keepdims=False")},
            {"psnr": 0, "floor": 1},
        ),
        "natural logarithm": (
            {"psnr": ("np.log10", "np.log")},
            {"psnr": 1, "floor": 1},
        ),
        "finite for identical pictures": (
            {"psnr": ("log10(error)", "log10(error + 1e-9)")},
            {"psnr": 2},
        ),
        "the network of the notebook": (
            {
                "output_error": (
                    "np.asarray(forward(",
                    "np.asarray(ni.tap(model, 'logits')(",
                )
            },
            {"output_error": 0},
        ),
        "summed, not averaged": (
            {"output_error": (".mean(axis=1)", ".sum(axis=1)")},
            {"output_error": 0, "floor": 2},
        ),
        "mean of the batch as error": (
            {"output_error": (".mean(axis=1)", ".mean()")},
            {"output_error": 0, "floor": 2},
        ),
        "the first layer": ({"tapped": ("hidden_2", "hidden_1")}, {"tapped": 0}),
        "the book's model, always": (
            {"tapped": ("ni.tap(model", "ni.tap(ni.pretrained('mlp')")},
            {"tapped": 0},
        ),
        "the same picture twice": (
            {"twins": ('second = found_from("noise")', "second = first.copy()")},
            {"twins": 0},
        ),
        "nearly the same picture twice": (
            {"twins": ('second = found_from("noise")', "second = first * 0.999")},
            {"twins": 0},
        ),
        "outside of the box": (
            {"twins": ('second = found_from("noise")', "second = first * 3 - 1")},
            {"twins": 0},
        ),
        "random pictures": (
            {
                "twins": (
                    'second = found_from("noise")',
                    "second = np.random.rand(6, 28, 28, 1)",
                )
            },
            {"twins": 0},
        ),
        "the mean of the eight": (
            {
                "floor": (
                    "x_train.mean(axis=0, keepdims=True)",
                    "digits.mean(axis=0)[None]",
                )
            },
            {"floor": 0},
        ),
    },
}
