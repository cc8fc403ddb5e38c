"""Figures in one style: grids of images, curves of a search, curves of a study.

Every function returns a :class:`Picture`; as the last line of a notebook cell it
shows once. Pictures are transparent, with an ink that reads on a white page and on a
black one, as wide as a book's column and lettered for a phone. In images, dark is
much: 0 is white and 1 is black. Markers and line styles differ as well as colors. What
does not fit its labels and captions, or is not finite, is a ValueError.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps, rc_params_from_file, style
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import NullLocator
from PIL import Image

from netinvert.data import ASSETS
from netinvert.metrics import mean_and_interval

WIDTH = 5.6  # inches: 728 pixels, the width of the book's column
MOST_COLUMNS = 16
LARGEST_CELL = 1.1  # inches
LINE = 0.2  # inches: the height of a caption
EDGE = 0.05  # inches
CELL_GAP = 0.03  # inches
ABOVE = 6  # with more images than this in a row, its label stands above them
OUTSIDE = 0.05  # share of the range; pixels further outside it are drawn in color
STYLE = rc_params_from_file(ASSETS / "book.mplstyle", use_default_template=False)
INK = STYLE["text.color"]
COLORS = COLOURS = tuple(STYLE["axes.prop_cycle"].by_key()["color"])
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)), ":", (0, (8, 2)), (0, (1, 1)))
Rows = Mapping[str, np.ndarray]
LEGEND = {"ncols": 3, "frameon": False, "fontsize": 10}
OVER, UNDER = "#D55E00", "#56B4E9"
GREYS = colormaps["gray_r"].with_extremes(over=OVER, under=UNDER)


class Picture(Figure):
    """A matplotlib figure that a notebook shows without pyplot, always the same."""

    def _ipython_display_(self) -> None:
        # Only this hook outranks the inline backend, which would crop the picture
        # as soon as pyplot has been used and show nothing before.
        from IPython.display import display

        display({"image/png": figure_png(self), "text/plain": repr(self)}, raw=True)


def figure_png(figure: Figure) -> bytes:
    """Draw a figure as a PNG file: the same bytes on every run.

    It has a palette of 256 colors: a third of the weight and no visible loss.
    """
    for text in figure.findobj(Text):  # written outside of our style
        if to_rgb(text.get_color()) == (0, 0, 0):
            text.set_color(INK)
    file = io.BytesIO()
    with style.context(["default", STYLE]):
        figure.savefig(file, format="rgba", dpi=figure.dpi)
        width, height = figure.canvas.get_width_height()
    pixels = np.frombuffer(file.getvalue(), "<u4").reshape(height, width)
    colors, places, counts = np.unique(pixels, return_inverse=True, return_counts=True)
    common = np.argsort(-counts, kind="stable")
    rgba = colors.view("u1").reshape(-1, 4)
    _, first = np.unique(rgba[common] >> 3, axis=0, return_index=True)
    # The commonest of each group of like colors, then whatever else is common.
    kept = list(dict.fromkeys([*common[np.sort(first)], *common]))[:256]
    on_black = rgba[:, :3] * (rgba[:, 3:] / 255)
    seen = np.hstack([on_black, on_black - rgba[:, 3:]])  # on black, and on white
    nearest = ((seen[:, None] - seen[kept]) ** 2).sum(axis=2).argmin(axis=1)
    image = Image.fromarray(nearest[places].reshape(pixels.shape).astype("u1"))
    image.putpalette(rgba[kept].tobytes(), "RGBA")
    file = io.BytesIO()
    image.save(file, format="png", optimize=True)
    return file.getvalue()


def axes_for(xlabel: str, ylabel: str, height: float = 3.3) -> Axes:
    """Begin a figure of your own in our style; draw, then show the axes' ``figure``.

    Labels with units; ``height`` in inches, the width is that of the book's column.
    """
    with style.context(["default", STYLE]):
        axes = Picture(figsize=(WIDTH, height), layout="constrained").subplots()
    axes.set(xlabel=xlabel, ylabel=ylabel)
    return axes


def compare(
    rows: Rows, captions: Rows | None = None, titles=None, bounds=(0.0, 1.0)
) -> Picture:
    """Draw a grid of images: one row per label, one column per image.

    Parameters
    ----------
    rows : dict of label to array (N, height, width, channels)
        The same N for every label, at most 16; 1 channel or 3.
    captions : dict of label to N strings or numbers, optional
        Set under the images of that row, such as ``{"ridge": psnr(x, found)}``.
        The labels themselves stand beside the rows, above them from 7 columns on.
    titles : N strings or numbers, optional
        Set above the columns.
    bounds : (low, high)
        The values of white and of black. Grey pixels that lie above by more than
        5 % of the range are drawn orange, as far below blue.
    """
    rows, across = _checked(rows)
    captions = captions or {}
    if not isinstance(captions, Mapping) or not captions.keys() <= rows.keys():
        known = f"labels among {list(rows)}; got {captions!r}"
        raise ValueError(f"captions must be a dict of label to texts, its {known}")
    if np.shape(bounds) != (2,) or not np.isfinite(bounds).all() or not np.ptp(bounds):
        raise ValueError(
            "bounds must be two different numbers, the values of white and of black; "
            f"got {bounds!r}"
        )
    for label, images in rows.items():
        if images.ndim != 4 or images.shape[-1] not in (1, 3):
            raise ValueError(
                f"row {label!r} must hold images, shape (N, height, width, 1 or 3); "
                f"got {images.shape}. Draw other inputs with vectors."
            )
    heads = across > ABOVE
    longest = max(len(word) for label in rows for word in _wrap(label))
    above = [LINE * bool(heads and str(label)) for label in rows]
    above[0] += LINE * (titles is not None)
    below = [LINE * (label in captions) for label in rows]
    margin = EDGE if heads else 2 * EDGE + 0.09 * longest
    axes, corners, cell = _paper(above, below, across, margin)
    side = cell - CELL_GAP
    for place, text in zip(corners[0], _texts(titles, across), strict=True):
        middle = place + np.array([side / 2, side + 0.04])
        axes.text(*middle, text, ha="center", va="bottom")
    for places, room, (label, images) in zip(corners, above, rows.items(), strict=True):
        left, bottom = places[0]
        if heads:
            axes.text(left, bottom + side + room - LINE + 0.04, label, va="bottom")
        else:
            look = {"ha": "right", "va": "center"}
            axes.text(left - 0.06, bottom + side / 2, "\n".join(_wrap(label)), **look)
        texts = _texts(captions.get(label), across)
        for place, image, text in zip(places, images, texts, strict=True):
            _draw_image(axes, place, cell, image, bounds, text)
    return axes.figure


def vectors(rows: Rows, names: Sequence | None = None, titles=None) -> Picture:
    """Draw inputs that are not images: one panel per input, one mark per label.

    Parameters
    ----------
    rows : dict of label to array (N, d)
        The same shape for every label, at most 16 inputs.
    names : d strings, optional
        Names of the d values; their numbers when left out.
    titles : N strings or numbers, optional
        Set above the panels.
    """
    rows, panels = _checked(rows)
    shapes = {values.shape for values in rows.values()}
    if len(shapes) > 1 or any(len(shape) != 2 for shape in shapes):
        raise ValueError(f"vectors needs rows of one shape (N, d), got {shapes}")
    places = np.arange(shapes.pop()[1])
    across, down = min(panels, 4), -(-panels // 4)
    with style.context(["default", STYLE]):
        figure = Picture(figsize=(WIDTH, 0.4 + 1.6 * down), layout="constrained")
        grid = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    for axes in grid[panels:]:
        axes.set_axis_off()
    names = _texts(places if names is None else names, len(places))
    for panel, title in enumerate(_texts(titles, panels)):
        for number, (label, values) in enumerate(rows.items()):
            look = _look(number) | {"linestyle": ""}
            grid[panel].plot(places, values[panel], label=label, **look)
        grid[panel].set_title(title, fontsize=10)
        grid[panel].set_xticks(places, names)
        grid[panel].margins(x=0.15)
    if len(rows) > 1:
        handles = grid[0].get_lines()
        figure.legend(handles=handles, loc="outside upper left", **LEGEND)
    return figure


def history(results, ylabel: str = "objective") -> Picture:
    """Draw how a search went: the median over targets and the middle 80 %.

    Of an Inversion, or a dict of label to Inversion, by methods that search and so
    recorded a history. The scale is logarithmic unless an objective goes below zero.
    """
    results = results if isinstance(results, Mapping) else {"": results}
    axes = axes_for("step", ylabel)
    lowest = np.inf
    for number, (label, result) in enumerate(results.items()):
        if "objective" not in result.history:
            raise ValueError(f"{result.method}: only a search records an objective")
        steps, values = result.history["step"], result.history["objective"]
        band = np.percentile(values, [10, 50, 90], axis=1)
        _draw_band(axes, steps, *band, _look(number) | {"marker": ""}, label)
        lowest = min(lowest, np.min(values))
    if lowest >= 0:
        axes.set_yscale("log", nonpositive="clip")
    return label_ends(axes)


def curve(x: Sequence, values: Rows, xlabel: str, ylabel: str, floors=None) -> Picture:
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
    """
    named = isinstance(x[0], str)
    places = np.arange(len(x)) if named else np.asarray(x)
    axes = axes_for(xlabel, ylabel)
    for number, (label, rows) in enumerate(values.items()):
        rows = np.atleast_2d(rows)
        if rows.shape[1:] != places.shape or not np.isfinite(rows).all():
            raise ValueError(
                f"{label!r} must hold finite values of shape (R, {len(x)}), for each "
                f"setting a column; got shape {np.shape(values[label])}"
            )
        middle = rows.mean(axis=0)
        half = [
            mean_and_interval(column)[1] if len(rows) > 1 else 0 for column in rows.T
        ]
        if named:
            aside = places + 0.12 * (number - (len(values) - 1) / 2)
            look = _look(number) | {"linestyle": ""}
            axes.errorbar(aside, middle, half, label=label, **look)
        else:
            band = middle - half, middle, middle + half
            _draw_band(axes, places, *band, _look(number), label)
    for label, floor in (floors or {}).items():
        axes.axhline(floor, color=INK, linewidth=1.2, linestyle=":")
        at = {"xy": (1, floor), "xycoords": axes.get_yaxis_transform()}
        axes.annotate(label, **at, ha="right", va="bottom", fontsize=10)
    if not named and places.min() > 0 and places.max() >= 16 * places.min():
        axes.set_xscale("log", base=2)
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(places, [str(setting) for setting in x])
    return label_ends(axes)


def label_ends(axes: Axes) -> Picture:
    """Set the label of each line at its right end; no legend. Choose scales first."""
    to_share = axes.transData + axes.transAxes.inverted()  # of the axes' height
    ends = []
    for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
        line = handle[0] if isinstance(handle, Container) else handle
        at = np.transpose(line.get_data())[-1]
        ends.append((to_share.transform(at)[1], _wrap(label), at, line.get_color()))
    ends.sort(key=lambda end: end[0])
    inches = 0.75 * axes.figure.get_figheight()
    room = np.array([0.19 * len(lines) / inches for _, lines, _, _ in ends])
    gaps = np.append(0, np.cumsum((room[1:] + room[:-1]) / 2))
    heights = np.array([height for height, *_ in ends])
    heights = gaps + np.maximum.accumulate(heights - gaps)  # pushed up by those below
    heights = np.minimum(heights, 1 - (gaps[-1] - gaps))  # and down by the top
    line = {"arrowstyle": "-", "shrinkB": 5, "alpha": 0.6}
    for height, (_, lines, at, color) in zip(heights, ends, strict=True):
        where = {"xytext": (1.04, height), "textcoords": "axes fraction"}
        text = {"text": "\n".join(lines), "va": "center", "fontsize": 10}
        axes.annotate(xy=at, **where, **text, arrowprops=line | {"color": color})
    return axes.figure


def inversion_figure(result) -> Picture:
    """Draw the first 8 reconstructions of an Inversion, each with its output error."""
    inputs = np.asarray(result.inputs[:8])
    errors = [f"{error:.1e}" for error in result.residual[:8]]
    if inputs.ndim != 4 or inputs.shape[-1] not in (1, 3):
        flat = inputs.reshape(len(inputs), -1)
        return vectors({"reconstruction": flat}, titles=errors)
    bounds = min(0.0, inputs.min()), max(1.0, inputs.max())
    return compare({"": inputs}, captions={"": errors}, bounds=bounds)


def _paper(above, below, across, margin) -> tuple[Axes, np.ndarray, float]:
    """Axes, the lower left corner of every cell and its side, all in inches.

    Rows get room for text ``above`` and ``below`` them, labels a ``margin`` on the
    left. One sheet for all images: axes for each would draw ten times as slowly.
    """
    cell = min(LARGEST_CELL, (WIDTH - margin - EDGE) / across)
    heights = np.add(above, below) + cell + EDGE
    width, height = margin + across * cell + EDGE, EDGE + sum(heights)
    with style.context(["default", STYLE, {"font.size": min(10, 26 * cell)}]):
        axes = Picture(figsize=(width, height)).add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height), autoscale_on=False)
    axes.set_axis_off()
    lefts = margin + cell * np.arange(across)
    bottoms = height - np.cumsum([0, *heights[:-1]]) - above - cell
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
        axes.imshow(shown[..., 0], cmap=GREYS, vmin=0, vmax=1, **look)
    else:
        axes.imshow(inside, **look)
    frame = {"facecolor": "none", "edgecolor": INK, "linewidth": 0.6}
    axes.add_patch(Rectangle((left, bottom), width, height, **frame))
    axes.text(left + width / 2, place[1] - 0.03, caption, ha="center", va="top")


def _draw_band(axes, x, low, middle, high, look, label) -> None:
    axes.plot(x, middle, label=label, **look)
    axes.fill_between(x, low, high, color=look["color"], alpha=0.18, lw=0)


def _look(number: int) -> dict:
    """Color, marker and line style of the number-th label."""
    kinds = {"color": COLORS, "marker": MARKERS, "linestyle": LINES}
    return {kind: choices[number % len(choices)] for kind, choices in kinds.items()}


def _wrap(label: str) -> list[str]:
    return textwrap.wrap(str(label), 14) or [""]


def _texts(values, count: int) -> list[str]:
    """Words as they are, numbers with three digits."""
    if values is None:
        return [""] * count
    if len(values) != count:
        raise ValueError(f"{count} captions or titles are needed, got {len(values)}")
    return [v if isinstance(v, str) else f"{v:.3g}" for v in values]


def _checked(rows) -> tuple[dict[str, np.ndarray], int]:
    """Return the rows as arrays of one length, and that length."""
    if not isinstance(rows, Mapping):
        kind = type(rows).__name__
        raise ValueError(f'give a dict of label to array, {{"true": x}}; got {kind}')
    rows = {label: np.asarray(values) for label, values in rows.items()}
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
    return rows, max(counts)
