"""Break a copy of the project on purpose, and require the tests to notice.

``python tests/faults.py`` applies one fault at a time, runs the part of the suite
that should see it, and prints a table. It fails if a fault goes unseen, or if the
same tests are not green without it. ``python tests/faults.py seed picture`` tries
only the faults whose name contains one of the words.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", "_build", "*.egg-info", ".*_cache")
CHAPTER = "notebooks/solutions/01_solutions.ipynb"  # short, with pictures and text
STORED = "tests/test_notebooks.py -k 01_solutions"


@dataclass(frozen=True)
class Fault:
    """One way to be wrong: what changes in which file, and who must notice."""

    name: str
    file: str
    change: Callable[[str], str]
    tests: str


def swap(old: str, new: str) -> Callable[[str], str]:
    """Replace a text that stands exactly once in the file."""

    def change(text: str) -> str:
        if text.count(old) != 1:
            raise ValueError(f"{old!r} stands {text.count(old)} times, expected once")
        return text.replace(old, new)

    return change


def on_cells(spoil: Callable[[dict], bool]) -> Callable[[str], str]:
    """Spoil the first code cell for which ``spoil`` finds something to change."""

    def change(text: str) -> str:
        notebook = json.loads(text)
        cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        if not any(spoil(cell) for cell in cells):
            raise ValueError("no cell of the notebook can be spoiled in this way")
        return json.dumps(notebook, indent=1)

    return change


def empty_picture(cell: dict) -> bool:
    for output in cell["outputs"]:
        if "image/png" in output.get("data", {}):
            code = "".join(output["data"]["image/png"])
            picture = Image.open(io.BytesIO(base64.b64decode(code)))
            file = io.BytesIO()
            Image.new("RGB", picture.size, "white").save(file, "PNG")
            blank = base64.b64encode(file.getvalue()).decode("ascii")
            output["data"]["image/png"] = blank
            return True
    return False


def forget_the_run(cell: dict) -> bool:
    ran = bool(cell["outputs"])
    if ran:
        cell["outputs"], cell["execution_count"] = [], None
    return ran


def drop_the_outputs(cell: dict) -> bool:
    had = bool(cell["outputs"])
    cell["outputs"] = []
    return had


def drop_alt_text(cell: dict) -> bool:
    return bool(cell["metadata"].pop("mystnb", None))


def write_to_stderr(cell: dict) -> bool:
    line = 'import sys; sys.stderr.write("careful\\n")\n'
    cell["source"] = [line, *"".join(cell["source"]).splitlines(keepends=True)]
    cell["metadata"]["tags"] = ["nbval-ignore-output"]  # where nbval itself is blind
    return True


def change_a_stored_digit(cell: dict) -> bool:
    for output in cell["outputs"]:
        text = "".join(output.get("text", ""))
        if match := re.search(r"\d\.(\d)", text):
            digit = str((int(match[1]) + 5) % 10)
            output["text"] = text[: match.start(1)] + digit + text[match.end(1) :]
            return True
    return False


def change_a_last_digit(cell: dict) -> bool:
    """By two: one is what the comparison allows."""
    for output in cell["outputs"]:
        text = "".join(output.get("text", ""))
        if match := re.search(r"\d\.\d*(\d)(?![\d.])", text):
            digit = str(int(match[1]) + (2 if int(match[1]) < 8 else -2))
            output["text"] = text[: match.start(1)] + digit + text[match.end(1) :]
            return True
    return False


SLOWER = swap("learning_rate: float = 0.2", "learning_rate: float = 0.02")
FAULTS = [
    Fault(
        "learning rate ten times too small",
        "netinvert/methods/gradient.py",
        SLOWER,
        "tests/methods/test_gradient.py -k default_search",
    ),
    Fault(
        "the same, as chapter 3 shows it",
        "netinvert/methods/gradient.py",
        SLOWER,
        "notebooks/03_gradient_search.ipynb",
    ),
    Fault(
        "dropped objective term",
        "netinvert/objectives.py",
        swap("Objective(self.terms + other.terms)", "Objective(self.terms)"),
        "tests/test_objectives.py",
    ),
    Fault(
        "cross-entropy takes logits for probabilities",
        "netinvert/objectives.py",
        swap("np.abs(rows.sum(axis=1) - 1) > 1e-2", "(rows < -1)[:, 0]"),
        "tests/methods/test_gradient.py -k cross_entropy",
    ),
    Fault(
        "flipped sign of the step",
        "netinvert/methods/gradient.py",
        swap("moved = code - decayed", "moved = code + decayed"),
        "tests/test_methods.py -k linear_network",
    ),
    Fault(
        "lost seed",
        "netinvert/methods/parametrization.py",
        swap(
            "np.random.default_rng(seed).uniform(", "np.random.default_rng().uniform("
        ),
        "tests/test_methods.py -k noise",
    ),
    Fault(
        "neighbours coupled",
        "netinvert/methods/gradient.py",
        swap(
            "square = 0.999 * square + 0.001 * tf.square(gradient)",
            "square = 0.999 * square + 0.001 * tf.reduce_mean("
            "tf.square(gradient), axis=0, keepdims=True)",
        ),
        "tests/test_methods.py -k neighbours",
    ),
    Fault(
        "second order: the box gives nothing to the others",
        "netinvert/methods/levenberg_marquardt.py",
        swap("    force += solve_damped(gram, level, left)\n", ""),
        "tests/methods/test_levenberg_marquardt.py -k box",
    ),
    Fault(
        "second order: any step is good",
        "netinvert/methods/levenberg_marquardt.py",
        swap("good = errors < state.errors", "good = errors < 1e30"),
        "tests/methods/test_levenberg_marquardt.py -k history_goes",
    ),
    Fault(
        "second order: one Jacobian for different starts",
        "netinvert/methods/levenberg_marquardt.py",
        swap("tf.reduce_all(part.codes == part.codes[:1])", "tf.constant(True)"),
        "tests/methods/test_levenberg_marquardt.py -k elsewhere",
    ),
    Fault(
        "second order: who has arrived stays in the batch",
        "netinvert/methods/levenberg_marquardt.py",
        swap("np.flatnonzero(state.going)", "np.arange(len(codes))"),
        "tests/methods/test_levenberg_marquardt.py -k leaves_the_batch",
    ),
    Fault(
        "second order: one target that has arrived ends the search",
        "netinvert/methods/levenberg_marquardt.py",
        swap("if not going.size", "if going.size < len(codes)"),
        "tests/methods/test_levenberg_marquardt.py -k every_output",
    ),
    Fault(
        "a short step in a metric that forbids directions",
        "netinvert/methods/prior_covariance.py",
        swap("LEAST_FLOOR * variances[0]", "LEAST_FLOOR * variances[1]"),
        "tests/methods/test_prior_covariance.py -k forbidden",
    ),
    Fault(
        "Ctrl-C waits for the next mark of the history",
        "netinvert/methods/gradient.py",
        swap("min(begin + stride, end)", "end"),
        "tests/methods/test_interrupts.py -k Adam",
    ),
    Fault(
        "a decorated objective cannot be pickled",
        "netinvert/objectives.py",
        swap('function.__qualname__ += ".function"', "pass"),
        "tests/test_objectives.py -k pickled",
    ),
    Fault(
        "total variation of a line of pixels",
        "netinvert/objectives.py",
        swap(" or 1 in inputs.shape[1:3]:", ":"),
        "tests/test_objectives.py -k neighbors_in_both",
    ),
    Fault(
        "a prior that is NaN counts for nothing",
        "netinvert/methods/gradient.py",
        swap("if end == 0 and ", "if False and "),
        "tests/methods/test_gradient.py -k count_for_nothing",
    ),
    Fault(
        "wrong tap: the layer before",
        "netinvert/forward.py",
        swap("return [model.layers[layer]]", "return [model.layers[layer - 1]]"),
        "tests/test_forward.py",
    ),
    Fault(
        "wrong tap: probabilities for logits",
        "netinvert/forward.py",
        swap('tensor, name=f"{model.name}_to_{name}"', "model.output"),
        "tests/test_forward.py",
    ),
    Fault(
        "the judge trusts the method's bounds",
        "netinvert/inversion.py",
        swap(
            "inputs = np.clip(inputs, *representable(*bounds, inputs.dtype))",
            "inputs = np.asarray(inputs)",
        ),
        "tests/test_inversion.py",
    ),
    Fault(
        "a function that has changed is searched as it was",
        "netinvert/methods/gradient.py",
        swap("if steady and isinstance(forward, keras.Layer):", "if True:"),
        "tests/methods/test_gradient.py -k changed",
    ),
    Fault(
        "an array to start from shows nothing",
        "netinvert/inversion.py",
        swap("shape == size or size[0] == count", "False"),
        "tests/test_inversion.py -k start_from",
    ),
    Fault(
        "model files: a name is not resolved",
        "netinvert/models.py",
        swap("not all(is_part(thing, name) for thing in things)", "False"),
        "tests/test_loading.py -k goes_by",
    ),
    Fault(
        "model files: anything may unfold",
        "netinvert/models.py",
        swap("max(UNPACKED * packed, CONFIG_BYTES)", "1e30"),
        "tests/test_loading.py -k unfolds",
    ),
    Fault(
        "TensorFlow's log in a bare kernel",
        "netinvert/__init__.py",
        swap("os.dup2(nowhere, 2)", "pass"),
        "tests/test_quiet.py",
    ),
    Fault(
        "the front looks up",
        "netinvert/models.py",
        swap("import h5py\n", "import h5py\n\nimport netinvert.fibers.layers\n"),
        "tests/test_house.py",
    ),
    Fault(
        "decibels doubled",
        "netinvert/metrics.py",
        swap("return -10 *", "return -20 *"),
        "tests/test_metrics.py",
    ),
    Fault(
        "fibers: the verifier forgets the ReLU",
        "netinvert/certificates.py",
        swap("np.where(values > 0, values * q, values * p)", "values * q"),
        "tests/test_certificates.py",
    ),
    Fault(
        "fibers: the verifier takes any weights",
        "netinvert/certificates.py",
        swap("fingerprint(layers) == claim.network", "True"),
        "tests/test_certificates.py",
    ),
    Fault(
        "fibers: the verifier leaves the box",
        "netinvert/certificates.py",
        swap("low <= pixel <= high", "True"),
        "tests/test_certificates.py",
    ),
    Fault(
        "fibers: the verifier runs one input only",
        "netinvert/certificates.py",
        swap(
            'for name in ("first", "second"):\n        values',
            'for name in ["first"]:\n        values',
        ),
        "tests/test_certificates.py",
    ),
    Fault(
        "fibers: the last pixels are not solved for",
        "netinvert/fibers/exact.py",
        swap(
            "fmpq(second[place], below) + change / below", "fmpq(second[place], below)"
        ),
        "tests/test_certificates.py",
    ),
    Fault(
        "fibers: a twin is not looked at again",
        "netinvert/fibers/exact.py",
        swap("if not same or ", "if False and not same or "),
        "tests/fibers/test_exact.py",
    ),
    Fault(
        "fibers: walls on the wrong side",
        "netinvert/fibers/layers.py",
        swap("side = np.where(units, 1.0, -1.0)", "side = np.where(units, -1.0, 1.0)"),
        "tests/fibers/test_layers.py -k one_affine",
    ),
    Fault(
        "fibers: an equation is dropped",
        "netinvert/fibers/twins.py",
        swap("kept = order[:rank]", "kept, rank = order[: rank - 1], rank - 1"),
        "tests/fibers/test_twins.py -k samples",
    ),
    Fault(
        "fibers: the box is ignored",
        "netinvert/fibers/polytope.py",
        swap("high * ones, -low", "9 * high * ones, -low"),
        "tests/fibers/test_polytope.py -k interior",
    ),
    Fault(
        "fibers: the interior path ignores its equations",
        "netinvert/fibers/polytope.py",
        swap("clarabel.ZeroConeT(", "clarabel.NonnegativeConeT("),
        "tests/fibers/test_polytope.py -k interior",
    ),
    Fault(
        "proofs: a subclass passes for its parent",
        "netinvert/fibers/reading.py",
        swap(
            "type(layer) not in (*CLASSES, *MODELS)", "not isinstance(layer, CLASSES)"
        ),
        "tests/fibers/test_reading.py -k refused",
    ),
    Fault(
        "proofs: an activation goes by its name",
        "netinvert/fibers/reading.py",
        swap("if activation is known:", "if activation.__name__ == known.__name__:"),
        "tests/fibers/test_reading.py -k name_the_layer",
    ),
    Fault(
        "proofs: a softmax is dropped wherever it stands",
        "netinvert/fibers/reading.py",
        swap("if ended is not None:", "if False:"),
        "tests/fibers/test_reading.py -k refused",
    ),
    Fault(
        "proofs: a setting that nobody knows is let through",
        "netinvert/fibers/reading.py",
        swap("if not read or wanted != value:", "if wanted != value:"),
        "tests/fibers/test_reading.py -k name_the_layer",
    ),
    Fault(
        "proofs: model and plain layers are not compared",
        "netinvert/fibers/reading.py",
        swap("if not (gaps <= allowed).all():", "if False:"),
        "tests/fibers/test_reading.py -k part_is_said",
    ),
    Fault(
        "proofs: the two inputs found are not run",
        "netinvert/fibers/twins.py",
        swap("read(network, layer, proof.inputs)", "read(network, layer)"),
        "tests/fibers/test_reading.py -k run_as_well",
    ),
    Fault(
        "proofs: integers may be NumPy's",
        "netinvert/certificates.py",
        swap("exact and {*map(type, parts)} == {int} and ", "exact and "),
        "tests/test_certificates.py -k nothing_else",
    ),
    Fault(
        "proofs: numbers without end are read",
        "netinvert/certificates.py",
        swap("> MOST_BITS // 4", "> MOST_BITS * 400"),
        "tests/test_certificates.py -k bounded",
    ),
    Fault(
        "the tap is not compared with its model",
        "netinvert/forward.py",
        swap("if np.allclose(own, again,", "if False and np.allclose(own, again,"),
        "tests/test_forward.py -k probe",
    ),
    Fault(
        "fibers: widths swapped",
        "netinvert/fibers/twins.py",
        swap(
            "in polytope.extremes(among, x.ravel())",
            "in polytope.extremes(among, x.ravel())[::-1]",
        ),
        "tests/fibers/test_twins.py -k linear_program_per_pixel",
    ),
    Fault(
        "fibers: seen and unseen swapped",
        "netinvert/fibers/twins.py",
        swap("return seen, inputs - seen", "return inputs - seen, seen"),
        "tests/fibers/test_twins.py -k unseen",
    ),
    Fault(
        "fibers: small pivots counted as none",
        "netinvert/fibers/ledger.py",
        swap("RANK = 1e-9", "RANK = 0.3"),
        "tests/test_certificates.py -k ledger",
    ),
    Fault(
        "fibers: the census judges the digit, not its twin",
        "netinvert/studies/census.py",
        swap(
            "twins.append(certificate.inputs[1])", "twins.append(certificate.inputs[0])"
        ),
        "tests/studies/test_census.py",
    ),
    Fault(
        "changed table taken",
        "netinvert/studies/results.py",
        swap(".hexdigest()) != expected", ".hexdigest()) is None"),
        "tests/studies/test_results.py -k refused",
    ),
    Fault(
        "NaN in a unit taken",
        "netinvert/studies/results.py",
        swap("if not np.isfinite(unit[name]).all()", "if np.size(unit[name]) == 0"),
        "tests/studies/test_results.py -k names",
    ),
    Fault(
        "later file replaces the first",
        "netinvert/studies/storage.py",
        swap("os.link(partial, path)", "partial.replace(path)"),
        "tests/studies/test_benchmark.py -k stays",
    ),
    Fault(
        "table without what came meanwhile",
        "netinvert/studies/results.py",
        swap(
            'while paths != (paths := sorted((out / "units").glob("*.npz"))):',
            'for paths in [sorted((out / "units").glob("*.npz"))]:',
        ),
        "tests/studies/test_results.py -k comes",
    ),
    Fault(
        "a quiz gives its answers away",
        "netinvert/widgets.py",
        swap("base64.b64encode(reply).decode()", "reply.decode()"),
        "tests/test_widgets.py -k quiz",
    ),
    Fault(
        "figures: ink that is lost on a dark page",
        "netinvert/assets/book.mplstyle",
        swap("text.color: 767676", "text.color: 333333"),
        "tests/test_plots.py -k ink",
    ),
    Fault("stored picture emptied", CHAPTER, on_cells(empty_picture), CHAPTER),
    Fault("stored number changed", CHAPTER, on_cells(change_a_stored_digit), CHAPTER),
    Fault("its last digit by two", CHAPTER, on_cells(change_a_last_digit), CHAPTER),
    Fault(
        "unrun cell, as the re-run sees it", CHAPTER, on_cells(forget_the_run), CHAPTER
    ),
    Fault(
        "unrun cell, as the stored file shows",
        CHAPTER,
        on_cells(forget_the_run),
        STORED,
    ),
    Fault("outputs stripped", CHAPTER, on_cells(drop_the_outputs), CHAPTER),
    Fault("message on stderr", CHAPTER, on_cells(write_to_stderr), CHAPTER),
    Fault("figure without alt text", CHAPTER, on_cells(drop_alt_text), STORED),
]


def run_tests(tests: str, copy: Path) -> tuple[int, str]:
    """Run part of the suite in the copy; return its exit code and first failure."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [*command, *tests.split(maxsplit=2)],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},  # not the installed package
        capture_output=True,
        text=True,
    )
    first = re.search(r"^FAILED \S*?::(.*?)( - .*)?$", run.stdout, re.MULTILINE)
    return run.returncode, first[1] if first else run.stdout[-1500:]


def verdict(fault: Fault, copy: Path, green: dict[str, bool]) -> tuple[bool, str]:
    """Apply a fault, run its tests, mend the copy; say who noticed, if anybody.

    ``green`` remembers which tests pass without any fault, as they must.
    """
    if fault.tests not in green:
        green[fault.tests] = run_tests(fault.tests, copy)[0] == 0
    if not green[fault.tests]:
        return False, f"NOT GREEN WITHOUT IT: {fault.tests}"
    file = copy / fault.file
    healthy = file.read_text(encoding="utf-8")
    file.write_text(fault.change(healthy), encoding="utf-8")
    code, first = run_tests(fault.tests, copy)
    file.write_text(healthy, encoding="utf-8")
    if code == 1:
        return True, first
    return False, "NOBODY" if code == 0 else f"THE TESTS DID NOT RUN: {first}"


def main(words: list[str]) -> int:
    faults = [f for f in FAULTS if not words or any(word in f.name for word in words)]
    noticed, green = 0, {}
    print(f"{'fault':40} {'seconds':>7}  noticed by")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=NOT_COPIED)
        for fault in faults:
            start = time.monotonic()
            seen, first = verdict(fault, copy, green)
            noticed += seen
            print(
                f"{fault.name:40} {time.monotonic() - start:7.0f}  {first}", flush=True
            )
    print(f"{noticed} of {len(faults)} faults noticed")
    return 0 if noticed == len(faults) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
