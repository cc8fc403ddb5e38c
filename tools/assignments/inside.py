"""Runs one submission, behind the wall; started by ``run.py`` with a job on stdin.

It holds no secret and decides nothing. It runs the cells, asks for what the judge wants
to see, and hands back arrays and text. So there is no judge to overwrite and no answer
to read; an exception that was swallowed is an answer that is missing. Whatever a
submission does to this process, it can only hand in something else.
"""

import base64
import io
import json
import os
import signal
import sys

MOST_NUMBERS, MOST_TEXT = 400_000, 8_000_000  # in one answer


class OutOfTime(BaseException):
    """A cell took too long; no ``except Exception`` holds it back."""


def limit_resources(limits):
    try:
        import resource
    except ImportError:  # Windows
        return
    for name, value in limits.items():
        if (kind := getattr(resource, name, None)) is not None:
            _, hard = resource.getrlimit(kind)
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            try:
                resource.setrlimit(kind, (value, value))
            except (ValueError, OSError):  # macOS knows some and sets none
                pass


def trip_wire(roots, say):
    """Refuse, and name, what no assignment needs. Python cannot take a hook off.

    Returns a function that ends all other processes behind the wall.
    """
    off, kill, wait = [], os.kill, os.waitpid
    roots = tuple(roots)
    looks = {"open", "os.listdir", "os.scandir", "os.remove", "os.rename", "os.mkdir"}
    looks |= {"os.chmod", "os.truncate", "shutil.rmtree"}
    starts = ("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork")
    starts += ("pty.", "os.symlink", "os.link", "os.startfile", "os.kill", "socket.")
    harmless = {"socket.__new__", "socket.gethostname"}
    absolute, decode, text = os.path.abspath, os.fsdecode, (str, bytes)

    def hook(event, args):
        if event in looks:
            if not isinstance(args[0], text) or not args[0]:
                return
            path = absolute(decode(args[0]))
            if path.startswith(roots):
                return
            what = f"{event} {path}"
        elif event.startswith(starts) and event not in harmless and not off:
            what = event
        else:
            return
        say({"refused": what})
        raise PermissionError(f"not allowed while this is graded: {what}")

    def alone():
        off.append(1)
        try:
            kill(-1, signal.SIGKILL)  # all that this user may, but not ourselves
            while wait(-1, 0):  # the dead count as processes until they are asked for
                pass
        except OSError:  # there is none
            pass
        off.clear()

    sys.addaudithook(hook)
    return alone


def new_shell():
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    class Shell(InteractiveShell):
        def enable_gui(self, gui=None):
            pass

    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    return Shell.instance(config=config)


class Given(dict):
    """Arrays to call a submission with; it gets copies, and we see what it does."""

    def __init__(self, arrays):
        super().__init__(arrays)
        self.lent = []

    def __getitem__(self, name):
        copy = super().__getitem__(name).copy()
        self.lent.append((copy, super().__getitem__(name)))
        return copy


def main():
    import numpy as np

    result = os.fdopen(os.dup(1), "wb", 0)
    dumps, encode = json.dumps, base64.b64encode

    def say(message):
        result.write(dumps(message).encode() + b"\n")

    with np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False) as file:
        arrays = dict(file)
    job = json.loads(str(arrays.pop("job")))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    limit_resources(job["limits"])
    import matplotlib.pyplot  # these look around when they are imported
    import tensorflow  # noqa: F401

    import netinvert  # noqa: F401

    timed = hasattr(signal, "setitimer")

    def at_most(seconds, again=1.0):
        if timed:
            signal.setitimer(signal.ITIMER_REAL, seconds, again if seconds else 0)

    def out_of_time(*_):
        raise OutOfTime(f"stopped after {job['cell_seconds']} s")

    if timed:
        signal.signal(signal.SIGALRM, out_of_time)
    shell = new_shell()
    matplotlib.use("agg")
    alone = trip_wire(job["roots"], say)

    asarray, equal, shape_of = np.asarray, np.array_equal, np.shape
    numpy_as_it_is = dict(vars(np))
    for name, source in job["cells"]:
        say({"cell": name})
        error = None
        try:
            at_most(job["cell_seconds"])
            outcome = shell.run_cell(source, store_history=False, silent=False)
            error = outcome.error_before_exec or outcome.error_in_exec
        except BaseException as trouble:  # also what came between two cells
            error = trouble
        finally:
            at_most(0)
            if job["walled"]:  # another user or a jail: nobody else's are within reach
                alone()
        if error is not None:
            text = f"{type(error).__name__}: {error}"
            say({"error": [name, text[:300]]})

    vars(np).update(numpy_as_it_is)  # who patched it loses what the patch made
    space = shell.user_ns
    given = Given(arrays)
    space["GIVEN"] = given
    try:
        exec(job["prelude"], space)
    except BaseException as error:
        say(
            {"error": ["what the judge asks", f"{type(error).__name__}: {error}"[:300]]}
        )
    for name, expression in job["asks"].items():
        say({"cell": f"the answer {name}"})
        given.lent.clear()
        try:
            at_most(job["cell_seconds"])
            value = eval(expression, space)
            if not isinstance(value, (str, bytes)):
                value = asarray(value)
            if isinstance(value, (str, bytes)) or value.dtype.kind == "U":
                text = value if isinstance(value, str) else asarray(value).tolist()
                if len(dumps(text)) > MOST_TEXT:
                    raise ValueError("a text that is far too long")
                message = {"answer": name, "text": text}
            else:
                value = value.astype("float64")
                if value.size > MOST_NUMBERS:
                    raise ValueError(f"an array that is far too large: {value.shape}")
                data = encode(value.tobytes()).decode()
                message = {"answer": name, "shape": list(shape_of(value)), "data": data}
            same = all(equal(a, b) for a, b in given.lent)
            at_most(0)
            say(message | {"changed": not same})
        except BaseException as error:
            at_most(0)
            say({"missing": [name, f"{type(error).__name__}: {error}"[:300]]})
    say({"done": True})


if __name__ == "__main__":
    main()
