"""Figures show what they were given, once, and the same on every run."""

import base64
import io
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from nbclient import NotebookClient
from PIL import Image

from netinvert import plots


def pixels(figure, mode="RGB") -> np.ndarray:
    image = Image.open(io.BytesIO(plots.figure_png(figure))).convert("RGBA")
    return np.asarray(image.convert(mode))


def luminance(color) -> float:
    """Relative luminance of the Web Content Accessibility Guidelines."""
    shares = np.array(to_rgb(color))
    linear = np.where(
        shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4
    )
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrasts(color) -> tuple[float, float]:
    """Contrast with a white page and with the black one of book.css."""
    light = luminance(color) + 0.05
    return 1.05 / light, light / 0.05


@pytest.fixture
def images():
    return np.random.default_rng(0).random((4, 28, 28, 1)).astype("float32")


def search(factor=1.0, targets=50):
    """A result whose objective falls tenfold every 100 steps."""
    steps = np.arange(0, 301, 100)
    spread = factor * np.linspace(0.5, 1.5, targets)
    objective = 10.0 ** (-steps[:, None] / 100) * spread
    return SimpleNamespace(
        method="a search", history={"step": steps, "objective": objective}
    )


def words(axes) -> dict:
    """Where each text of a grid of images is anchored, in inches."""
    return {text.get_text(): text.get_position() for text in axes.texts}


def test_every_image_stands_in_its_row_and_column(images):
    axes = plots.compare({"target": images, "mean image": 1 - images}).axes[0]
    shown = [image.get_array() for image in axes.get_images()]
    np.testing.assert_array_equal(shown, np.concatenate([images, 1 - images])[..., 0])
    left, right, bottom, top = np.array(
        [image.get_extent() for image in axes.get_images()]
    ).T.reshape(4, 2, 4)
    assert (np.diff(left) > 0).all() and (right[:, :-1] < left[:, 1:]).all()
    assert (bottom[0] > top[1]).all()
    for row, label in enumerate(["target", "mean image"]):
        x, y = words(axes)[label]
        assert x < left[row, 0] and bottom[row, 0] < y < top[row, 0]


@pytest.mark.parametrize("shape", [(9, 30), (100, 5)])
def test_an_image_keeps_its_proportions(shape):
    axes = plots.compare({"": np.zeros((2, *shape, 1))}).axes[0]
    for image in axes.get_images():
        left, right, bottom, top = image.get_extent()
        assert (top - bottom) / (right - left) == pytest.approx(shape[0] / shape[1])


def test_ink_is_dark_and_paper_is_white():
    blank, full = np.zeros((1, 8, 8, 1)), np.ones((1, 8, 8, 1))
    middle = [pixels(plots.compare({"": x}))[60, 60] for x in (blank, full)]
    np.testing.assert_array_equal(middle, [[255] * 3, [0] * 3])


@pytest.mark.parametrize(
    ("value", "is_coloured"), [(1.02, False), (1.2, True), (-0.2, True)]
)
def test_pixels_clearly_outside_the_bounds_are_coloured(value, is_coloured):
    picture = pixels(plots.compare({"": np.full((1, 8, 8, 1), value)}))
    assert (np.ptp(picture[60, 60]) > 0) == is_coloured


def test_captions_and_titles_stand_with_their_images(images):
    figure = plots.compare(
        {"target": images, "guess": images},
        captions={"guess": np.array([12.345, 9.0, np.inf, 20.0])},
        titles=["three", "two", "one", "zero"],
    )
    axes = figure.axes[0]
    boxes = [image.get_extent() for image in axes.get_images()]
    where = words(axes)
    for text, title, first, second in zip(
        ["12.3", "9", "inf", "20"],
        ["three", "two", "one", "zero"],
        boxes[:4],
        boxes[4:],
        strict=True,
    ):
        middle = (first[0] + first[1]) / 2
        assert where[title][0] == where[text][0] == pytest.approx(middle)
        assert where[title][1] > first[3] and where[text][1] < second[2]


def test_the_curve_of_a_search_is_the_median_over_targets():
    figure = plots.history({"slow": search(1.0), "fast": search(0.01)}, "output error")
    axes = figure.axes[0]
    slow, fast = (line.get_ydata() for line in axes.get_lines())
    np.testing.assert_allclose(slow, [1, 0.1, 0.01, 0.001])
    np.testing.assert_allclose(fast, slow / 100)
    assert axes.get_yscale() == "log"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "output error")
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(1.4) and band.min() == pytest.approx(0.0006)


def test_an_objective_below_zero_is_drawn_on_a_linear_scale():
    result = search()
    result.history["objective"] -= 0.5
    assert plots.history(result).axes[0].get_yscale() == "linear"


def test_a_curve_is_the_mean_with_an_interval_that_covers_the_settings():
    rows = np.array([[1.0, 4.0, 9.0], [3.0, 6.0, 11.0]])
    figure = plots.curve(
        [2, 8, 32], {"ridge": rows}, "size", "PSNR (dB)", floors={"blank": 0.5}
    )
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), [2, 5, 10])
    np.testing.assert_allclose(axes.get_lines()[1].get_ydata(), 0.5)
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    half = 12.706  # quantile of t with one degree of freedom, standard error 1
    assert band.max() == pytest.approx(10 + half, abs=1e-3)
    assert band.min() == pytest.approx(2 - half, abs=1e-3)
    assert axes.get_xscale() == "log"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["2", "8", "32"]


def test_labels_differ_in_colour_marker_and_line():
    values = {name: [1.0, 2.0] for name in "abcdefg"}
    lines = plots.curve(["x", "y"], values, "", "").axes[0].get_lines()
    looks = [(line.get_color(), line.get_marker()) for line in lines]
    assert len({colour for colour, _ in looks}) == len(lines)
    assert len({marker for _, marker in looks}) == len(lines)


def test_vectors_are_drawn_one_panel_per_input():
    truth = np.arange(6.0).reshape(2, 3)
    figure = plots.vectors({"true": truth, "found": -truth}, names=["a", "b", "c"])
    drawn = [[line.get_ydata() for line in axes.get_lines()] for axes in figure.axes]
    np.testing.assert_array_equal(drawn, np.stack([truth, -truth], axis=1))


@pytest.mark.parametrize("shape", [(40, 28, 28, 1), (5, 28, 28, 1), (40, 7), (3, 2, 2)])
def test_a_result_shows_at_most_eight_inputs_with_their_errors(shape):
    result = SimpleNamespace(inputs=np.zeros(shape), residual=np.full(shape[0], 2e-7))
    axes = plots.inversion_figure(result).axes
    if len(shape) == 4:
        shown = len(axes[0].get_images())
        texts = [text.get_text() for text in axes[0].texts if text.get_text()]
    else:
        shown = sum(one.axison for one in axes)
        texts = [one.get_title() for one in axes if one.axison]
    assert shown == min(8, shape[0])
    assert texts == ["2.0e-07"] * shown


def test_pictures_have_no_card_and_fit_the_column(images):
    for figure in (plots.compare({"target": images}), eval(CURVE)):
        alpha = pixels(figure, "RGBA")[..., 3]
        edge = np.concatenate([alpha[[0, -1]].ravel(), alpha[:, [0, -1]].ravel()])
        assert edge.max() == 0 and alpha.shape[1] <= 728


def test_ink_and_colors_can_be_read_on_white_and_on_black():
    assert min(contrasts(plots.INK)) >= 4.5
    assert min(min(contrasts(color)) for color in plots.COLORS) >= 3


def test_text_written_without_our_style_is_inked_all_the_same():
    axes = plots.axes_for("x", "y")
    axes.plot([1, 2], label="by hand")
    axes.legend()
    axes.text(1, 1, "a note")
    drawn = pixels(axes.figure, "RGBA")
    seen = drawn[drawn[..., 3] > 200][:, :3]
    assert seen.max(axis=1).min() > 0x60, "something is drawn black"


@pytest.mark.parametrize("kind", ["grid", "curves"])
def test_the_palette_loses_next_to_nothing(kind, images):
    values = {name: np.cumsum(images[n, :9, :5, 0], 1) for n, name in enumerate("abcd")}
    figure = (
        plots.compare({"": images})
        if kind == "grid"
        else plots.curve([1, 2, 3, 4, 5], values, "size", "PSNR (dB)")
    )
    ours, file = pixels(figure, "RGBA"), io.BytesIO()
    figure.savefig(file, dpi=figure.dpi, facecolor="none")
    exact = np.asarray(Image.open(file).convert("RGBA"))
    for page in (0, 255):
        on_page = [
            p[..., :3] * (p[..., 3:] / 255) + page * (1 - p[..., 3:] / 255)
            for p in (ours, exact)
        ]
        assert np.sqrt(np.mean((on_page[0] - on_page[1]) ** 2)) < 2


def test_ten_digits_in_a_row_are_64_pixels_wide(images):
    """On a screen of 1,280 pixels the book's column has 712 of the 728."""
    axes = plots.compare({"a label of some length": np.tile(images, (3, 1, 1, 1))[:10]})
    left, right, *_ = axes.axes[0].get_images()[0].get_extent()
    assert (right - left) * plots.STYLE["figure.dpi"] * 712 / 728 >= 64


def test_labels_stand_at_the_ends_of_their_lines_and_do_not_touch():
    values = {name: [0, height] for name, height in zip("abcde", [5, 5, 5.01, 0, 9])}
    axes = plots.curve([1, 2], values, "x", "y").axes[0]
    heights = {text.get_text(): text.xyann[1] for text in axes.texts}
    assert sorted(heights, key=heights.get) == ["d", "a", "b", "c", "e"]
    inches = np.diff(sorted(heights.values())) * 0.75 * 3.3
    assert inches.min() > 0.18
    assert {text.get_text(): text.xy[1] for text in axes.texts} == {
        name: row[-1] for name, row in values.items()
    }


def test_categories_are_dots_without_a_line_between_them():
    axes = plots.curve(["mlp", "cnn"], {"a": [1.0, 2.0], "b": [3.0, 4.0]}, "", "").axes[
        0
    ]
    for line, row in zip(axes.get_lines(), ([1, 2], [3, 4]), strict=True):
        assert line.get_linestyle() == "None" and line.get_marker() != ""
        np.testing.assert_array_equal(line.get_ydata(), row)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ({"a": np.zeros((2, 784))}, {}, "Draw other inputs with vectors"),
        ({"a": np.zeros((17, 8, 8, 1))}, {}, r"1 to 16; got \{'a': 17\}"),
        ({"a": np.zeros((2, 8, 8, 1)), "b": np.zeros((3, 8, 8, 1))}, {}, "'b': 3"),
        ({"a": np.full((2, 8, 8, 1), np.nan)}, {}, "'a' has values that are not"),
        ({"a": np.zeros((2, 8, 8, 1))}, {"captions": {"b": [1, 2]}}, r"\['a'\]"),
        ({"a": np.zeros((2, 8, 8, 1))}, {"titles": ["one"]}, "2 captions or titles"),
        ({}, {}, r"got \{\}"),
        (np.zeros((2, 8, 8, 1)), {}, "dict of label to array.*got ndarray"),
        ({"a": np.zeros((2, 8, 8, 1))}, {"captions": ["x", "y"]}, "captions must be a"),
        ({"a": np.zeros((2, 8, 8, 1))}, {"bounds": (1, 1)}, "two different numbers"),
        ({"a": np.zeros((2, 8, 8, 1))}, {"bounds": None}, "two different numbers"),
    ],
)
def test_a_grid_that_cannot_be_drawn_is_refused(rows, options, message):
    with pytest.raises(ValueError, match=message):
        plots.compare(rows, **options)


def test_curves_that_cannot_be_drawn_are_refused():
    with pytest.raises(ValueError, match=r"shape \(R, 2\).*got shape \(3,\)"):
        plots.curve([1, 2], {"a": [1.0, 2.0, 3.0]}, "", "")
    with pytest.raises(ValueError, match="only a search records"):
        plots.history(SimpleNamespace(method="ridge", history={}))
    with pytest.raises(ValueError, match="one shape"):
        plots.vectors({"a": np.zeros((2, 3)), "b": np.zeros((2, 4))})


CURVE = "plots.curve([1, 2, 3], {'ridge': [1.0, 3.0, 2.0]}, 'size', 'PSNR (dB)')"


def test_a_notebook_shows_a_picture_once_and_the_same_bytes_as_here():
    """With and without pyplot, which would add a display of its own."""
    cells = [
        f"from netinvert import plots\n{CURVE}",
        f"import matplotlib.pyplot as plt\nplt.figure(); plt.close()\n{CURVE}",
    ]
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
    here = plots.figure_png(eval(CURVE))
    for cell in notebook.cells:
        outputs = [output for output in cell.outputs if "data" in output]
        assert len(outputs) == 1
        assert base64.b64decode(outputs[0].data["image/png"]) == here
