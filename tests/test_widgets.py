"""Quizzes answer and sliders move the picture, with a kernel and without one."""

import base64
import html
import io
import json
import re
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

from netinvert import plots, widgets
from tests.browser import find_chromium, open_page

CHROMIUM = find_chromium()
QUESTION = "Is `f` one-to-one?"
REPLIES = {"always": "Not at <784> pixels: x\u00b2.", "never": "`relu` loses some."}


@pytest.fixture
def search():
    """Ten recorded steps of six images, darker by a tenth at every step."""
    shade = np.linspace(0, 0.9, 10).reshape(10, 1, 1, 1, 1)
    return SimpleNamespace(
        method="a search",
        history={
            "step": np.arange(0, 100, 10),
            "objective": np.linspace(9, 0, 10)[:, None] * np.ones((1, 30)),
            "inputs": np.broadcast_to(shade, (10, 6, 28, 28, 1)),
        },
    )


def blend(left, right_share=0.5):
    images = np.stack([np.full((8, 8, 1), left), np.full((8, 8, 1), right_share)])
    return images, f"left {left}, right {right_share}"


def content(explorer) -> dict:
    """What the static face carries: the sliders' values and a frame for each."""
    data = re.search('data-content="([^"]*)"', explorer.static()).group(1)
    return json.loads(html.unescape(data))


def grey_levels(png: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("L"))


def test_the_scrubber_shows_the_recorded_images_step_by_step(search):
    carried = content(widgets.scrubber(search))
    assert carried["choices"] == [[str(step) for step in range(0, 100, 10)]]
    middle = [grey_levels(png)[15, 15] for png, _ in carried["frames"]]
    np.testing.assert_allclose(middle, np.linspace(255, 25.5, 10), atol=11)
    texts = [text for _, text in carried["frames"]]
    assert texts[3] == "step 30: objective 6.0e+00"
    assert len(set(texts)) == 10


def test_the_scrubber_tells_both_errors_and_what_the_evaluator_reads(search):
    truth = np.full((6, 28, 28, 1), 0.2)
    search.targets = np.ones((6, 2))

    def forward(images):  # the mean shade, twice
        return np.repeat(images.mean(axis=(1, 2, 3))[:, None], 2, axis=1)

    def evaluator(images):
        return np.eye(10)[[3, 1, 4, 1]]

    carried = content(widgets.scrubber(search, truth, forward, evaluator))
    assert carried["frames"][5][1] == (
        "step 50: objective 4.0e+00, output error 2.5e-01, reconstruction error 0.090, "
        "the evaluator reads 3 1 4 1"
    )
    pixels = grey_levels(carried["frames"][5][0])
    np.testing.assert_allclose(pixels[[15, 45], 15], [204, 127], atol=11)


def test_a_long_search_is_thinned_to_a_light_page_with_both_its_ends(search):
    noise = np.random.default_rng(0).random((300, 4, 28, 28, 1))
    search.history.update(
        step=np.arange(300), objective=np.ones((300, 5)), inputs=noise
    )
    carried = content(widgets.scrubber(search))
    assert len(carried["frames"]) == 24
    assert carried["choices"][0][0] == "0" and carried["choices"][0][-1] == "299"
    assert len(widgets.scrubber(search).static()) < 100_000


def test_the_static_face_has_a_frame_for_every_combination_in_order():
    carried = content(widgets.explorer(blend, left=[0, 1], right_share=[0, 0.5, 1]))
    expected = [blend(left, share)[1] for left in (0, 1) for share in (0, 0.5, 1)]
    assert [text for _, text in carried["frames"]] == expected
    left_and_right = [grey_levels(png)[5, [5, 15]] for png, _ in carried["frames"]]
    dark = [[0, 0], [0, 0.5], [0, 1], [1, 0], [1, 0.5], [1, 1]]
    np.testing.assert_allclose(left_and_right, 255 * (1 - np.array(dark)), atol=11)


def test_the_static_face_is_self_contained_labelled_and_always_the_same():
    def words(left, right_share):
        return np.zeros((8, 8, 1)), f'"{left}" & {right_share}'

    choices = {"left": [0], "right_share": ["<b>", 1, 2, 3]}
    text = widgets.explorer(words, **choices).static()
    assert text == widgets.explorer(words, **choices).static()
    assert not re.search(r"https?:|src=\"(?!data:)|\bid=|import\b", text)
    assert 'alt="&quot;0&quot; &amp; &lt;b&gt;"' in text and "<b>" not in text
    assert re.search(r'<label class="ni-choice">right share <input', text)
    assert re.search(r'aria-label="left">left <button [^>]*>0</button>', text)


def test_pixels_outside_the_bounds_are_coloured_as_in_the_figures():
    shades = np.array([0.0, 1.2, -0.2, 1.01]).reshape(2, 2, 1)
    carried = content(widgets.explorer(lambda _: (shades, ""), _=[0]))
    png = base64.b64decode(carried["frames"][0][0])
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))[1:3, 1:3]
    drawn = ["#{:02X}{:02X}{:02X}".format(*rgb) for rgb in pixels.reshape(4, 3)]
    assert drawn == ["#FFFFFF", plots.OVER, plots.UNDER, "#000000"]


def test_a_figure_can_be_explored_too():
    def bars(height):
        return plots.curve([1, 2], {"": [0, height]}, "x", "y"), f"up to {height}"

    frames = content(widgets.explorer(bars, height=[1, 2]))["frames"]
    expected = plots.figure_png(bars(2)[0])
    assert base64.b64decode(frames[1][0]) == expected


def test_the_live_face_calls_the_function_for_the_setting_that_was_chosen():
    calls = []

    def count(digit):
        calls.append(digit)
        return np.zeros((8, 8, 1)), f"this is {digit}"

    box = widgets.explorer(count, digit=range(1000 // 5)).live()
    picture, slider = box.children[-2:]
    assert calls == [0] and "this is 0" in picture.value
    slider.value = 7
    assert calls == [0, 7] and 'alt="this is 7"' in picture.value
    slider.value = 0
    assert calls == [0, 7] and "this is 0" in picture.value


def test_the_live_face_shows_an_error_instead_of_the_last_picture():
    def fails(digit):
        if digit:
            raise ValueError("no <seven> here")
        return np.zeros((8, 8, 1)), "fine"

    box = widgets.explorer(fails, digit=[0, 7]).live()
    box.children[-1].value = 1
    assert "no &lt;seven&gt; here" in box.children[-2].value


CELL = """
import numpy as np
from netinvert import widgets
widgets.explorer(lambda share: (np.full((8, 8, 1), share), f'{share}'), share=[0, 1])
"""


@pytest.fixture(scope="module")
def shown_by_kernel():
    """What a kernel shows of the cell, by what the front end sends along with it."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    client, shown = NotebookClient(notebook, kernel_name="python3", timeout=120), {}
    with client.setup_kernel():
        for sent in ({}, {"cellId": "as JupyterLab and VS Code send it"}):
            client.kc.session.metadata = sent
            outputs = client.execute_cell(notebook.cells[0], 0).outputs
            (shown[len(sent)],) = [one.data for one in outputs if "data" in one]
    return {"a program": shown[0], "a person": shown[1]}


def test_a_notebook_run_by_a_program_stores_the_static_face_once(shown_by_kernel):
    namespace = {}
    exec(CELL.rsplit("\n", 2)[0], namespace)
    expected = eval(CELL.strip().splitlines()[-1], namespace).static()
    shown = shown_by_kernel["a program"]
    assert shown["text/html"] == expected
    assert not [kind for kind in shown if "widget" in kind]


def test_a_person_at_the_kernel_gets_the_live_face(shown_by_kernel):
    shown = shown_by_kernel["a person"]
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert "text/html" not in shown


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found")
def test_in_a_browser_slider_and_buttons_move_picture_and_text_without_a_kernel(
    tmp_path,
):
    twin = widgets.explorer(blend, left=[0], right_share=[0, 1]).static()
    choices = {"left": [0, 1], "right_share": [0, 0.4, 0.7, 1]}
    turned = widgets.explorer(blend, **choices)
    file = tmp_path / "page.html"
    file.write_text(f"<meta charset=utf-8>{twin}{turned.static()}", encoding="utf-8")
    second = "document.querySelectorAll('.ni-explorer')[1]"
    with open_page(CHROMIUM) as page:
        page.visit(file.as_uri())
        page.evaluate(f"{second}.querySelectorAll('button')[1].click()")
        page.evaluate(f"{second}.querySelector('input').focus()")
        page.press("End")
        pictures = page.evaluate("[...document.images].map(i => [i.src, i.alt])")
        text, slider = page.evaluate(
            f"['p', 'label span'].map(name => {second}.querySelector(name).textContent)"
        )
        pressed = page.evaluate(
            f"[...{second}.querySelectorAll('button')].map(b => b.ariaPressed)"
        )
        disabled = page.evaluate("document.querySelectorAll('[disabled]').length")
    assert pictures[0][1] == "left 0, right 0"
    png, words = content(turned)["frames"][7]
    assert pictures[1] == ["data:image/png;base64," + png, words]
    assert (text, slider) == ("left 1, right 1", "1")
    assert (pressed, disabled) == (["false", "true"], 0)


@pytest.mark.parametrize(
    ("choices", "right"),
    [({}, ""), ({"a": "b"}, "a"), ({"a": "b", "c": ""}, "a"), (REPLIES, "sometimes")],
)
def test_a_quiz_without_an_answer_is_refused(choices, right):
    with pytest.raises(ValueError, match=f"right={right!r}"):
        widgets.quiz(QUESTION, choices, right)


def test_a_quiz_is_small_self_contained_and_keeps_its_answers_to_itself():
    text = widgets.quiz(QUESTION, REPLIES, "never").data
    assert len(text) < 2000
    assert not re.search(r"https?:|\bsrc=|\bid=|import\b", text)
    assert "<p>Is <code>f</code> one-to-one?</p>" in text
    for secret in ("pixels", "some", "Right"):
        assert secret not in text


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found")
def test_a_quiz_says_what_is_wrong_and_what_is_right_by_mouse_and_keyboard(tmp_path):
    one = widgets.quiz(QUESTION, REPLIES, "never").data
    file = tmp_path / "page.html"
    file.write_text(f"<meta charset=utf-8>{one}{one}", encoding="utf-8")
    second = "document.querySelectorAll('.ni-quiz')[1]"
    said = f"{second}.querySelector('[aria-live]').innerText"
    with open_page(CHROMIUM) as page:
        page.visit(file.as_uri())
        assert page.evaluate(said) == ""
        page.evaluate(f"{second}.querySelector('button').click()")
        assert page.evaluate(said) == "\u2717 Not quite. Not at <784> pixels: x\u00b2."
        page.evaluate(f"{second}.querySelector('button').focus()")
        page.press("Tab")
        page.press("Enter")
        assert page.evaluate(said) == "\u2713 Right. relu loses some."
        pressed = page.evaluate(
            "[...document.querySelectorAll('button')]"
            ".map(one => one.getAttribute('aria-pressed'))"
        )
    assert pressed == ["false", "false", "false", "true"]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({}, "0 combinations"),
        ({"digit": []}, "needs a list of values"),
        ({"name": "abc"}, "needs a list of values.*'abc'"),
        ({"a": range(20), "b": range(20)}, "400 combinations"),
    ],
)
def test_an_explorer_refuses_choices_it_cannot_offer(choices, message):
    with pytest.raises(ValueError, match=message):
        widgets.explorer(blend, **choices)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (np.zeros((1, 8, 8, 1)), "return a pair"),
        ((np.zeros((9, 8, 8, 1)), ""), r"1 to 8 grey images.*\(9, 8, 8, 1\)"),
        ((np.zeros((2, 784)), ""), r"drawn with netinvert.plots"),
        ((np.full((8, 8, 1), np.nan), ""), "all finite"),
    ],
)
def test_an_explorer_refuses_what_it_cannot_draw(answer, message):
    with pytest.raises(ValueError, match=message):
        widgets.explorer(lambda x: answer, x=[1]).static()


def test_a_scrubber_needs_recorded_steps():
    with pytest.raises(ValueError, match="only a search records them"):
        widgets.scrubber(SimpleNamespace(method="ridge", history={}))
