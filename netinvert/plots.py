"""Figures in one style: grids of images, curves of a search, curves of a study.

Every function returns a :class:`Picture`; as the last line of a notebook cell it
shows once. Pictures are opaque white, so that they read the same on a dark page,
wide enough for a book's column and lettered for a phone. Ink is dark: 0 is white
and 1 is black. Colours are those of Okabe and Ito, which colour-blind readers can
tell apart; marker and line style differ as well.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps, style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullLocator

from netinvert.metrics import mean_and_interval

WIDTH = 5.6  # inches: 728 pixels, the width of the book's column
DOTS_PER_INCH = 130
MOST_COLUMNS = 16
LARGEST_CELL = 0.9  # inches
CAPTION_HEIGHT = 0.2  # inches
EDGE = 0.08  # inches
CELL_GAP = 0.04  # inches
OUTSIDE = 0.05  # share of the range; pixels further outside it are drawn in colour
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)), ":", (0, (8, 2)), (0, (1, 1)))
STYLE = {
    "font.size": 11,
    "axes.labelsize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "axes.axisbelow": True,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "figure.dpi": DOTS_PER_INCH,
    "figure.facecolor": "white",
}
LEGEND = {"ncols": 3, "frameon": False, "fontsize": 10}
OVER, UNDER = COLOURS[1], COLOURS[5]
INK = colormaps["gray_r"].with_extremes(over=OVER, under=UNDER)
QUIET = "#555555"


class Picture(Figure):
    """A matplotlib figure that a notebook shows without pyplot, always the same."""

    def _ipython_display_(self) -> None:
        # Only this hook outranks the inline backend, which would crop the picture
        # as soon as pyplot has been used and show nothing before.
        from IPython.display import display

        display({"image/png": figure_png(self), "text/plain": repr(self)}, raw=True)


def figure_png(figure: Figure) -> bytes:
    """Draw a figure as a PNG file: the same bytes on every run.

    Parameters
    ----------
    figure : matplotlib.figure.Figure

    Returns
    -------
    bytes
    """
    file = io.BytesIO()
    with style.context(["default", STYLE]):
        figure.savefig(file, format="png", dpi=figure.dpi, metadata={"Software": None})
    return file.getvalue()


def axes_for(xlabel: str, ylabel: str, height: float = 3.3) -> Axes:
    """Begin a figure of your own in the style of the others.

    Parameters
    ----------
    xlabel, ylabel : str
        With units.
    height : float
        In inches; the width is that of the book's column.

    Returns
    -------
    matplotlib.axes.Axes
        Draw on it, then show its ``figure``.
    """
    with style.context(["default", STYLE]):
        axes = Picture(figsize=(WIDTH, height), layout="constrained").subplots()
    axes.set(xlabel=xlabel, ylabel=ylabel)
    return axes


def compare(
    rows: Mapping[str, np.ndarray],
    captions: Mapping[str, Sequence] | None = None,
    titles: Sequence | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Picture:
    """Draw a grid of images: one row per label, one column per image.

    Parameters
    ----------
    rows : dict of label to array (N, height, width, channels)
        The same N for every label, at most 16; 1 channel or 3.
    captions : dict of label to N strings or numbers, optional
        Set under the images of that row, such as ``{"ridge": psnr(x, found)}``.
    titles : N strings or numbers, optional
        Set above the columns.
    bounds : (low, high)
        The values of white and of black. Grey pixels that lie above by more than
        5 % of the range are drawn orange, as far below blue.

    Returns
    -------
    Picture

    Raises
    ------
    ValueError
        If the rows hold no images, differ in length or are more than 16 wide,
        if a value is not finite, or if captions or titles do not fit.
    """
    rows = _rows_of(rows)
    captions = {} if captions is None else captions
    if not isinstance(captions, Mapping):
        raise ValueError(f"captions must be a dict of label to texts, got {captions!r}")
    _check_range(bounds)
    across = _count_columns(rows)
    for label, images in rows.items():
        _check_images(label, images)
    if not captions.keys() <= rows.keys():
        raise ValueError(f"captions for {list(captions)}, but rows for {list(rows)}")
    margin = 2 * EDGE + 0.09 * max(len(word) for label in rows for word in _wrap(label))
    captioned = [label in captions for label in rows]
    axes, corners, cell = _paper(captioned, across, margin, titles is not None)
    middles = corners[0, :, 0] + (cell - CELL_GAP) / 2
    top = corners[0, 0, 1] + cell - CELL_GAP + 0.04
    for middle, text in zip(middles, _texts(titles, across), strict=True):
        axes.text(middle, top, text, ha="center", va="bottom")
    for places, (label, images) in zip(corners, rows.items(), strict=True):
        left, bottom = places[0]
        centre = left - 0.06, bottom + (cell - CELL_GAP) / 2
        axes.text(*centre, "\n".join(_wrap(label)), ha="right", va="center")
        below = _texts(captions.get(label), across)
        for place, image, text in zip(places, images, below, strict=True):
            _draw_image(axes, place, cell, image, bounds, text)
    return axes.figure


def vectors(
    rows: Mapping[str, np.ndarray],
    names: Sequence[str] | None = None,
    titles: Sequence | None = None,
) -> Picture:
    """Draw inputs that are not images: one panel per input, one mark per label.

    Parameters
    ----------
    rows : dict of label to array (N, d)
        The same shape for every label, at most 16 inputs.
    names : d strings, optional
        Names of the d values; their numbers when left out.
    titles : N strings or numbers, optional
        Set above the panels.

    Returns
    -------
    Picture

    Raises
    ------
    ValueError
        If the rows are no vectors, differ in shape or are more than 16, if a
        value is not finite, or if names or titles do not fit.
    """
    rows = _rows_of(rows)
    panels = _count_columns(rows)
    shapes = {values.shape for values in rows.values()}
    if len(shapes) > 1 or any(len(shape) != 2 for shape in shapes):
        raise ValueError(f"vectors needs rows of one shape (N, d), got {shapes}")
    places = np.arange(shapes.pop()[1])
    across = min(panels, 4)
    down = -(-panels // across)
    with style.context(["default", STYLE]):
        figure = Picture(figsize=(WIDTH, 0.4 + 1.6 * down), layout="constrained")
        grid = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    for axes in grid[panels:]:
        axes.set_axis_off()
    for panel, (axes, title) in enumerate(
        zip(grid, _texts(titles, panels), strict=False)
    ):
        for number, (label, values) in enumerate(rows.items()):
            look = _look(number) | {"linestyle": ""}
            axes.plot(places, values[panel], label=label, **look)
        axes.set_title(title, fontsize=10)
        axes.set_xticks(places, _texts(places if names is None else names, len(places)))
        axes.margins(x=0.15)
    if len(rows) > 1:
        handles = grid[0].get_lines()
        figure.legend(handles=handles, loc="outside upper left", **LEGEND)
    return figure


def history(results, ylabel: str = "objective") -> Picture:
    """Draw how a search went: the median over targets and the middle 80 %.

    Parameters
    ----------
    results : Inversion, or dict of label to Inversion
        Results of methods that search, and so recorded a history.
    ylabel : str
        What the method's objective measures.

    Returns
    -------
    Picture
        Objective against step; the scale is logarithmic unless an objective goes
        below zero. The band runs from the 10th to the 90th percentile.

    Raises
    ------
    ValueError
        If a result has no recorded objective.
    """
    results = results if isinstance(results, Mapping) else {"": results}
    axes = axes_for("step", ylabel)
    lowest = np.inf
    for number, (label, result) in enumerate(results.items()):
        if "objective" not in result.history:
            raise ValueError(
                f"there is no objective to draw in the history of {result.method}: "
                "only a search records one"
            )
        steps, values = result.history["step"], result.history["objective"]
        low, middle, high = np.percentile(values, [10, 50, 90], axis=1)
        look = _look(number) | {"marker": ""}
        axes.plot(steps, middle, label=label, **look)
        axes.fill_between(steps, low, high, color=look["color"], alpha=0.18, lw=0)
        lowest = min(lowest, np.min(values))
    if lowest >= 0:
        axes.set_yscale("log", nonpositive="clip")
    return _with_legend(axes, results)


def curve(
    x: Sequence,
    values: Mapping[str, np.ndarray],
    xlabel: str,
    ylabel: str,
    floors: Mapping[str, float] | None = None,
) -> Picture:
    """Draw a study: the mean of each setting with its 95 % confidence interval.

    Parameters
    ----------
    x : K numbers or names
        The settings compared, such as bottleneck sizes or names of layers.
        Numbers that reach from one to sixteen times or more are spaced by factors.
    values : dict of label to array (R, K) or (K,)
        R repetitions (images or seeds) of each setting; without repetitions no
        interval is drawn.
    xlabel, ylabel : str
        With units.
    floors : dict of label to number, optional
        Grey lines across, such as ``{"class mean": 13.0}``.

    Returns
    -------
    Picture

    Raises
    ------
    ValueError
        If a row has not one column per setting, or a value is not finite.
    """
    named = isinstance(x[0], str)
    places = np.arange(len(x)) if named else np.asarray(x)
    axes = axes_for(xlabel, ylabel)
    for number, (label, rows) in enumerate(values.items()):
        rows = np.atleast_2d(rows)
        if rows.shape[1:] != places.shape or not np.isfinite(rows).all():
            raise ValueError(
                f"{label!r} must hold finite values of shape (R, {len(x)}), one "
                f"column per setting; got shape {np.shape(values[label])}"
            )
        look, middle = _look(number), rows.mean(axis=0)
        axes.plot(places, middle, label=label, **look)
        if len(rows) > 1:
            half = np.array([mean_and_interval(column)[1] for column in rows.T])
            ends = middle - half, middle + half
            axes.fill_between(places, *ends, color=look["color"], alpha=0.18, lw=0)
    for label, floor in (floors or {}).items():
        axes.axhline(floor, color=QUIET, linewidth=1.2, linestyle=":")
        at_right = axes.get_yaxis_transform()
        axes.text(
            1,
            floor,
            label,
            transform=at_right,
            ha="right",
            va="bottom",
            color=QUIET,
            fontsize=10,
        )
    if not named and places.min() > 0 and places.max() >= 16 * places.min():
        axes.set_xscale("log", base=2)
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(places, [str(setting) for setting in x])
    return _with_legend(axes, values)


def inversion_figure(result) -> Picture:
    """Draw the first reconstructions of a result, each with its output error.

    Parameters
    ----------
    result : Inversion
        At most its first 16 inputs are drawn: images as a grid, other inputs as
        marks.

    Returns
    -------
    Picture
    """
    inputs = np.asarray(result.inputs[:MOST_COLUMNS])
    errors = [f"{error:.1e}" for error in result.residual[:MOST_COLUMNS]]
    if inputs.ndim != 4 or inputs.shape[-1] not in (1, 3):
        flat = inputs.reshape(len(inputs), -1)
        return vectors({"reconstruction": flat}, titles=errors)
    bounds = min(0.0, inputs.min()), max(1.0, inputs.max())
    across = min(8, len(inputs))
    captioned = [True] * -(-len(inputs) // across)
    axes, corners, cell = _paper(captioned, across, EDGE, titles=False)
    places = corners.reshape(-1, 2)[: len(inputs)]
    for place, image, error in zip(places, inputs, errors, strict=True):
        _draw_image(axes, place, cell, image, bounds, error)
    return axes.figure


def _paper(captioned, across, margin, titles) -> tuple[Axes, np.ndarray, float]:
    """Lay out square cells for images on one sheet, measured in inches.

    ``captioned`` says for each row whether text stands below it, ``margin`` how
    many inches on the left are for labels, ``titles`` whether text stands on top.
    Returns the axes, the lower left corner of every cell and the side of a cell.
    One sheet for all images: axes for each would take ten times as long to draw.
    """
    cell = min(LARGEST_CELL, (WIDTH - margin - EDGE) / across)
    heights = [cell + EDGE + CAPTION_HEIGHT * below for below in captioned]
    width = margin + across * cell + EDGE
    height = EDGE + CAPTION_HEIGHT * titles + sum(heights)
    with style.context(["default", STYLE, {"font.size": min(10, 26 * cell)}]):
        axes = Picture(figsize=(width, height)).add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height), autoscale_on=False)
    axes.set_axis_off()
    lefts = margin + cell * np.arange(across)
    bottoms = sum(heights) - np.cumsum([0, *heights[:-1]]) - cell
    return axes, np.stack(np.meshgrid(lefts, bottoms), axis=-1), cell


def _draw_image(axes, place, cell, image, bounds, caption) -> None:
    low, high = bounds
    shade = (image - low) / (high - low)
    inside = np.clip(shade, 0, 1)
    sides = (cell - CELL_GAP) * np.array([image.shape[1], image.shape[0]])
    width, height = sides / max(image.shape[:2])
    left, bottom = place + (cell - CELL_GAP - np.array([width, height])) / 2
    extent = (left, left + width, bottom, bottom + height)
    look = {"extent": extent, "aspect": "auto", "interpolation": "nearest"}
    if image.shape[-1] == 1:
        shown = np.where(abs(shade - inside) > OUTSIDE, shade, inside)
        axes.imshow(shown[..., 0], cmap=INK, vmin=0, vmax=1, **look)
    else:
        axes.imshow(inside, **look)
    frame = {"facecolor": "none", "edgecolor": "#C8C8C8", "linewidth": 0.6}
    axes.add_patch(Rectangle((left, bottom), width, height, **frame))
    axes.text(left + width / 2, place[1] - 0.03, caption, ha="center", va="top")


def _look(number: int) -> dict:
    """Colour, marker and line style of the number-th label."""
    kinds = {"color": COLOURS, "marker": MARKERS, "linestyle": LINES}
    return {kind: choices[number % len(choices)] for kind, choices in kinds.items()}


def _with_legend(axes, labels) -> Picture:
    if any(labels):
        axes.figure.legend(loc="outside upper left", **LEGEND)
    return axes.figure


def _wrap(label: str) -> list[str]:
    return textwrap.wrap(str(label), 14) or [""]


def _texts(values, count: int) -> list[str]:
    """Words as they are, numbers with three digits."""
    if values is None:
        return [""] * count
    if len(values) != count:
        raise ValueError(f"{count} captions or titles are needed, got {len(values)}")
    return [v if isinstance(v, str) else f"{v:.3g}" for v in values]


def _rows_of(rows) -> dict[str, np.ndarray]:
    if not isinstance(rows, Mapping):
        raise ValueError(
            "what to draw must be a dict of label to array, such as "
            f'{{"originals": images}}; got {type(rows).__name__}'
        )
    return {label: np.asarray(values) for label, values in rows.items()}


def _check_range(bounds) -> None:
    try:
        low, high = map(float, bounds)
        fits = np.isfinite([low, high]).all() and low != high
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            "bounds must be two different numbers, the values of white and of black; "
            f"got {bounds!r}"
        )


def _count_columns(rows) -> int:
    lengths = {label: len(values) for label, values in rows.items()}
    counts = set(lengths.values())
    if len(counts) != 1 or not 1 <= max(counts) <= MOST_COLUMNS:
        raise ValueError(
            f"every row must hold the same number of inputs, 1 to {MOST_COLUMNS}; "
            f"got {lengths}. Choose some, such as images[:8]."
        )
    for label, values in rows.items():
        if not np.isfinite(values).all():
            raise ValueError(f"row {label!r} has values that are not finite")
    return max(counts)


def _check_images(label, images) -> None:
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"row {label!r} must hold images, shape (N, height, width, 1 or 3); got "
            f"{images.shape}. Draw other inputs with vectors."
        )
