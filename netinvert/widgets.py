"""Questions that check themselves, and pictures with sliders and buttons.

A :func:`quiz` is one piece of HTML that asks nothing of any server. An
:class:`Explorer` has two faces. In a notebook that a person is working in, it is
made of ipywidgets, and every move of a slider calls your function. Everywhere else
(a published page, a notebook executed by a program) it is self-contained HTML too,
with a frame for every setting. What cannot be asked or shown is a ValueError.
"""

from __future__ import annotations

import base64
import html
import io
import itertools
import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageColor

from netinvert.data import ASSETS
from netinvert.metrics import mse
from netinvert.plots import OUTSIDE, OVER, UNDER, figure_png

MOST_FRAMES = 200  # in one page: beyond that it grows heavy
SCRUBBER_FRAMES = 24
SCRUBBER_IMAGES = 4
COLUMN = 560  # pixels; small images are enlarged towards this width
LARGEST_SCALE = 5
GREYS = 14  # with the two colours of pixels out of bounds, 4 bits per pixel
RULE = 2  # index of the light grey around every image
FEW = 3  # so many values or fewer are buttons, not a slider
# Style and script; colours are inherited, to be readable on light and dark pages.
QUIZ = (ASSETS / "quiz.html").read_text(encoding="utf-8")
EXPLORER = (ASSETS / "explorer.html").read_text(encoding="utf-8")


def quiz(question: str, choices: Mapping[str, str], right: str):
    """Ask the reader a question, and answer when one of the choices is clicked.

    Two or more choices, each with a sentence that says why it is right or wrong; one of
    them is the right one. Words between backticks are set as code. Sentences are
    carried in base64: no answer stands in the page's text.
    """
    from IPython.display import HTML

    if len(choices) < 2 or right not in choices or not all(choices.values()):
        raise ValueError(
            "a quiz needs two or more choices, a sentence for each, and the right "
            f"one among them; got {dict(choices)!r} and right={right!r}"
        )
    buttons = ""
    for choice, sentence in choices.items():
        verdict = "\u2713 Right." if choice == right else "\u2717 Not quite."
        reply = f"<b>{verdict}</b> {_marked(sentence)}".encode()
        buttons += (
            f'<button type="button" aria-pressed="false" disabled data-reply="'
            f'{base64.b64encode(reply).decode()}">{_marked(choice)}</button>'
        )
    return HTML(
        '<div class="ni-quiz" role="group" aria-label="Question">'
        f"<p>{_marked(question)}</p><div>{buttons}</div>"
        f'<p aria-live="polite"></p>{QUIZ}</div>'
    )


@dataclass(frozen=True, repr=False, eq=False)
class Explorer:
    """A picture with sliders, which :func:`explorer` and :func:`scrubber` make.

    A notebook shows the face that fits: ``live()`` where a person works in it,
    otherwise ``static()``.
    """

    function: Callable
    choices: dict[str, list]
    _frames: dict = field(default_factory=dict)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} ({len(v)})" for name, v in self.choices.items())
        return f"<Explorer with sliders {sizes}>"

    def frame(self, *places: int) -> tuple[str, str]:
        """Return picture (PNG in base64) and text for one place of each slider."""
        if places not in self._frames:
            values = map(list.__getitem__, self.choices.values(), places)
            answer = self.function(**dict(zip(self.choices, values, strict=True)))
            if not isinstance(answer, tuple) or len(answer) != 2:
                raise ValueError(f"return a pair (images or figure, text): {answer!r}")
            shown, text = answer
            png = figure_png(shown) if isinstance(shown, Figure) else _png(shown)
            self._frames[places] = base64.b64encode(png).decode("ascii"), str(text)
        return self._frames[places]

    def static(self) -> str:
        """Return HTML that needs no kernel, no server and no other file."""
        places = itertools.product(*(range(len(v)) for v in self.choices.values()))
        frames = [self.frame(*place) for place in places]
        names = [[str(value) for value in v] for v in self.choices.values()]
        content = json.dumps({"choices": names, "frames": frames})
        controls = "".join(map(_control, self.choices, names))
        return (
            '<div class="ni-explorer" role="group" aria-label="Picture with sliders"'
            f' data-content="{html.escape(content)}">'
            f"{_picture(*frames[0])}{controls}{EXPLORER}</div>"
        )

    def live(self):
        """Return the ipywidgets face: every move of a slider calls the function."""
        import ipywidgets

        controls = []
        for name, values in self.choices.items():
            few = len(values) <= FEW
            kind = ipywidgets.ToggleButtons if few else ipywidgets.SelectionSlider
            options = [(str(value), place) for place, value in enumerate(values)]
            words = {"description": name.replace("_", " ")}
            words["style"] = {"description_width": "initial"}
            controls.append(kind(options=options, **words))
            controls[-1].continuous_update = False
        picture = ipywidgets.HTML()

        def show(_=None) -> None:
            try:
                shown = _picture(*self.frame(*(control.value for control in controls)))
            except Exception as error:  # a notebook hides what a callback raises
                shown = f"<pre>{html.escape(repr(error))}</pre>"
            picture.value = shown

        for control in controls:
            control.observe(show, names="value")
        show()
        box = ipywidgets.VBox([ipywidgets.HTML(EXPLORER), picture, *controls])
        box.add_class("ni-explorer")
        return box

    def _ipython_display_(self) -> None:
        from IPython.display import HTML, display

        display(self.live() if _person_at_kernel() else HTML(self.static()))


def explorer(function: Callable, **choices: Sequence) -> Explorer:
    """Let a reader turn the settings of a function and see what it draws.

    Parameters
    ----------
    function : callable
        Called with one value of every choice, by name. Returns a pair: what to
        show, either grey images in [0, 1] of shape (n, height, width, 1), n <= 8,
        side by side, or a figure from :mod:`netinvert.plots`; and a text that
        says the same in words, set below it and read aloud instead of it.
    **choices : sequences
        The values of each setting, such as ``digit=range(10)``,
        ``prior_weight=[0, 0.1, 1]``, first value first. One slider each, or
        buttons for up to 3 values; 1 to 200 frames in all.

    Examples
    --------
    >>> explorer(lambda share: (share * three, f"{share:.0%}"), share=[0, 0.5, 1])
    """
    listed = {k: [] if isinstance(v, str) else list(v) for k, v in choices.items()}
    frames = math.prod(map(len, listed.values()))
    if not listed or not 1 <= frames <= MOST_FRAMES:
        raise ValueError(
            "each choice needs a list of values, such as digit=range(10), and an "
            f"explorer carries 1 to {MOST_FRAMES} frames, one for every combination; "
            f"got {choices} with {frames if listed else 0} combinations"
        )
    return Explorer(function, listed)


def scrubber(result, truth=None, forward=None, evaluator=None) -> Explorer:
    """Let a reader move through the steps of a search.

    Parameters
    ----------
    result : Inversion
        Of a method that searches images. Its first 4 are shown at up to 24 of the
        recorded steps, the first and the last among them.
    truth : array (N, height, width, 1), optional
        The true inputs: drawn above, and the reconstruction error is told.
    forward, evaluator : callables, optional
        The network that was inverted and an independent judge: the output error
        and what the judge reads are told. Errors are medians of the 4.
    """
    past = result.history
    if not {"step", "inputs"} <= past.keys():
        raise ValueError(
            f"there are no steps to show in the history of {result.method}: only a "
            "search records them"
        )
    places = np.linspace(0, len(past["step"]) - 1, SCRUBBER_FRAMES).round().astype(int)
    place_of = {int(past["step"][place]): place for place in places}

    def at(step):
        shown, told = (place_of[step], slice(SCRUBBER_IMAGES)), []
        images = past["inputs"][shown]
        if "objective" in past:
            told.append(f"objective {np.median(past['objective'][shown]):.1e}")
        if forward is not None:
            missed = mse(result.targets[: len(images)], forward(images))
            told.append(f"output error {np.median(missed):.1e}")
        if truth is not None:
            missed = mse(truth[: len(images)], images)
            told.append(f"reconstruction error {np.median(missed):.3f}")
        if evaluator is not None:
            reads = np.argmax(evaluator(images), axis=1)
            told.append(f"the evaluator reads {' '.join(map(str, reads))}")
        if truth is not None:
            images = np.concatenate([truth[: len(images)], images], axis=1)
        return images, f"step {step}: " + ", ".join(told)

    return explorer(at, step=list(place_of))


def _person_at_kernel() -> bool:
    """Whether a front end sent the cell's identity along, as no program does."""
    from IPython import get_ipython

    parent = getattr(get_ipython(), "get_parent", dict)()
    return "cellId" in parent.get("metadata", {}) or "google.colab" in sys.modules


def _marked(text: str) -> str:
    return re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _control(name: str, values: list[str]) -> str:
    """Buttons for a few values, otherwise a slider; the script enables them."""
    words = html.escape(name.replace("_", " "))
    if len(values) <= FEW:
        buttons = "".join(
            f'<button type="button" aria-pressed="{str(not n).lower()}" disabled>'
            f"{html.escape(value)}</button>"
            for n, value in enumerate(values)
        )
        start = f'<div class="ni-choice" role="group" aria-label="{words}">{words} '
        return f"{start}{buttons}</div>"
    return (
        f'<label class="ni-choice">{words} <input type="range" min="0" '
        f'max="{len(values) - 1}" value="0" disabled>'
        f"<span>{html.escape(values[0])}</span></label>"
    )


def _picture(png: str, text: str) -> str:
    """Enlarge small pictures by a whole number, with sharp pixels."""
    width = Image.open(io.BytesIO(base64.b64decode(png))).width
    scale = max(1, min(LARGEST_SCALE, COLUMN // width))
    sharp = "; image-rendering: pixelated" if scale > 1 else ""
    words = html.escape(text)
    return (
        f'<img src="data:image/png;base64,{png}" alt="{words}" '
        f'style="width: {scale * width}px{sharp}"><p aria-live="polite">{words}</p>'
    )


def _png(images) -> bytes:
    """Draw grey images side by side in 4 bits per pixel, white 0 and black 1."""
    images = np.asarray(images, dtype="float64")
    if images.ndim == 3:
        images = images[np.newaxis]
    fits = images.ndim == 4 and images.shape[3] == 1 and 1 <= len(images) <= 8
    if not fits or not np.isfinite(images).all():
        raise ValueError(
            "expected 1 to 8 grey images, shape (n, height, width, 1), all finite; got "
            f"{images.shape}. Anything else can be drawn with netinvert.plots."
        )
    ink = np.clip(images[..., 0] * (GREYS - 1), 0, GREYS - 1).round()
    ink[images[..., 0] > 1 + OUTSIDE] = GREYS
    ink[images[..., 0] < -OUTSIDE] = GREYS + 1
    framed = np.pad(ink, [(0, 0), (1, 1), (1, 1)], constant_values=RULE)
    greys = [f"hsl(0, 0%, {100 * (1 - i / (GREYS - 1))}%)" for i in range(GREYS)]
    palette = map(ImageColor.getrgb, [*greys, OVER, UNDER])
    picture = Image.fromarray(np.hstack(framed).astype("uint8"))
    picture.putpalette(list(itertools.chain.from_iterable(palette)))
    file = io.BytesIO()
    picture.save(file, format="png", bits=4, optimize=True)
    return file.getvalue()
