"""The published pages, built as `make html` builds them and opened in a browser."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import axe_playwright_python
import pytest

from tests.browser import find_chromium, open_page, served
from tools.environment import ROOT
from tools.print_book import pages, print_page
from tools.run_notebooks import all_notebooks

HTML = ROOT / "_build" / "html"
SCREENSHOTS = ROOT / "_build" / "screenshots"
SIZES = {"wide": (1280, 800), "phone": (390, 844)}
PAGES_WITH_QUIZ = 8
HEAVIEST = 1_500_000  # bytes: a page and its pictures, without theme and MathJax
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")

WHAT_IS_MISSING = """
[...document.images].filter(i => !(i.complete && i.naturalWidth)).map(i => i.src)
"""
WHAT_IS_NOT_DESCRIBED = """
[...document.querySelectorAll("main img")].filter(i => !i.alt.trim())
  .map(i => i.outerHTML.slice(0, 120))
"""
# An output, or something in it, that is wider than its box.
WHAT_IS_CUT = """
[...document.querySelectorAll("div.cell_output, div.cell_output *")]
  .filter(e => e.clientWidth && e.scrollWidth > e.clientWidth + 1)
  .map(e => `${e.scrollWidth}/${e.clientWidth}: ${e.textContent.trim().slice(0, 80)}`)
"""
WHICH_CODE_IS_CUT = """
[...document.querySelectorAll("div.highlight pre")]
  .filter(e => e.clientWidth && e.scrollWidth > e.clientWidth + 1)
  .map(e => `${e.scrollWidth}/${e.clientWidth}: ${e.textContent.trim().slice(0, 80)}`)
"""
WHAT_HAS_A_CARD = """
[...document.querySelectorAll(".bd-article :is(img, .text_html)")]
  .filter(e => getComputedStyle(e).backgroundColor !== "rgba(0, 0, 0, 0)"
    || getComputedStyle(e).filter !== "none")
  .map(e => e.outerHTML.slice(0, 120))
"""
WHAT_AXE_FINDS = """
axe.run({runOnly: RULES, resultTypes: ["violations"], preload: false})
.then(found => found.violations.map(
  rule => `${rule.id}: ${rule.nodes.map(node => node.html.slice(0, 120)).join(" and ")}`
))
"""
# On a phone the window itself grows with what sticks out; the screen does not.
WHAT_STICKS_OUT = """
document.documentElement.scrollWidth <= screen.width ? [] :
[...document.querySelectorAll("main *")]
  .filter(e => e.getBoundingClientRect().right > screen.width + 1)
  .map(e => e.outerHTML.slice(0, 120)).concat("(page)")
"""


@pytest.fixture(scope="module")
def built():
    """Folder of the pages, built from the stored outputs with warnings as errors."""
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", ".", "-q"]
    command += ["--all", "-n", "-W", "--keep-going"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    return HTML


class Links(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        names = {"a": "href", "img": "src", "script": "src", "link": "href"}
        self.addresses += [v for k, v in attributes if v and k == names.get(tag)]


@pytest.mark.parametrize("page", pages())
def test_every_link_within_the_book_leads_somewhere(built, page):
    file = built / f"{page}.html"
    for address in Links(file.read_text(encoding="utf-8")).addresses:
        parts = urlsplit(address)
        if not parts.scheme and not parts.netloc and parts.path:
            assert (file.parent / unquote(parts.path)).exists(), address


def test_every_function_of_the_package_that_a_chapter_calls_has_its_entry(built):
    entries = (built / "book/api.html").read_text(encoding="utf-8")
    texts = [path.read_text(encoding="utf-8") for path in all_notebooks()]
    called = set(re.findall(r"\bni\.(?:[a-z]+\.)?(\w+)\(", "".join(texts)))
    named = re.findall(r'id="netinvert\.[\w.]*?(\w+)"|"pre">(\w+)<', entries)
    assert len(called) > 20 and not called - {name for pair in named for name in pair}


def test_every_chapter_and_solution_is_in_the_book():
    read = [p for p in all_notebooks() if "assignments" not in p.parts]
    expected = {p.relative_to(ROOT).with_suffix("").as_posix() for p in read}
    assert expected <= set(pages())


@pytest.mark.parametrize("page", [p for p in pages() if p.startswith("notebooks/")])
def test_every_chapter_opens_in_colab_and_on_binder(built, page):
    addresses = Links((built / f"{page}.html").read_text(encoding="utf-8")).addresses
    for host in ("colab.research.google.com", "mybinder.org"):
        assert any(host in address and page in address for address in addresses)


@pytest.fixture(scope="module")
def site(built):
    """Address at which the built pages are served."""
    with served(built) as address:
        yield address


@pytest.fixture(scope="module")
def browser(site):
    chromium = find_chromium()
    if chromium is None and os.environ.get("CI"):
        pytest.fail("the page checks need Chromium, and in CI they must run")
    if chromium is None:
        pytest.skip("no Chromium found")  # conftest.py says what to do about it
    with open_page(chromium) as page:
        yield page


def complaints(events: list[dict], site: str) -> list[str]:
    """What the browser reported that it should not have: errors, outside requests."""
    found = []
    for event in events:
        kind, data = event.get("method"), event.get("params", {})
        if kind == "Runtime.exceptionThrown":
            details = data["exceptionDetails"]
            found.append(details.get("exception", details).get("description", ""))
        elif kind == "Log.entryAdded" and data["entry"]["level"] == "error":
            found.append(f"{data['entry']['text']} {data['entry'].get('url', '')}")
        elif kind == "Runtime.consoleAPICalled" and data["type"] == "error":
            found.append(f"console: {[a.get('value') for a in data['args']]}")
        elif kind == "Network.requestWillBeSent":
            address = data["request"]["url"]
            if not address.startswith((site, "data:", "blob:")):
                found.append(f"request to another site: {address}")
        elif kind == "Network.loadingFailed" and not data.get("canceled"):
            found.append(f"not loaded: {data['errorText']}")
    return found


@pytest.mark.parametrize("page", pages())
def test_the_page_loads_whole_and_fits_every_screen(browser, site, page):
    browser.look(*SIZES["wide"], "light")
    browser.visit(f"{site}/{page}.html")
    for name, (width, height) in SIZES.items():
        for scheme in ("light", "dark"):
            browser.look(width, height, scheme)
            browser.evaluate("new Promise(requestAnimationFrame).then(() => null)")
            file = f"{page.replace('/', '-')}-{name}-{scheme}.jpeg"
            browser.screenshot(SCREENSHOTS / file)
            assert browser.evaluate(WHAT_IS_MISSING) == []
            assert browser.evaluate(WHAT_IS_NOT_DESCRIBED) == []
            assert browser.evaluate(WHAT_STICKS_OUT) == [], name
            assert browser.evaluate(WHAT_IS_CUT) == [], name
            assert browser.evaluate(WHAT_HAS_A_CARD) == [], scheme
            theme = browser.evaluate("document.documentElement.dataset.theme")
            assert theme == scheme
            if name == "wide":
                assert browser.evaluate(WHICH_CODE_IS_CUT) == []
                browser.evaluate(f"{AXE.read_text(encoding='utf-8')}; null")
                rules = "undefined" if scheme == "light" else "['color-contrast']"
                found = browser.evaluate(WHAT_AXE_FINDS.replace("RULES", rules))
                assert found == [], scheme
    assert complaints(browser.events, site) == []


@pytest.mark.parametrize("page", pages())
def test_the_page_is_light(built, page):
    file = built / f"{page}.html"
    addresses = set(Links(file.read_text(encoding="utf-8")).addresses)
    pictures = [file.parent / unquote(a) for a in addresses if "_images/" in a]
    weight = sum(path.stat().st_size for path in [file, *pictures])
    assert weight <= HEAVIEST, f"{weight:,} bytes"


def test_the_solutions_are_folded_away_below_their_chapters(browser, site):
    browser.visit(f"{site}/book/intro.html")
    entries = browser.evaluate(
        "[...document.querySelectorAll('.bd-sidebar-primary li')].map(e => "
        "[e.querySelector('a').textContent.trim(), e.checkVisibility(), "
        "e.querySelector(':scope > details')?.open])"
    )
    solutions = [visible for name, visible, _ in entries if "Solutions" in name]
    folded = [opened for *_, opened in entries if opened is not None]
    chapters = len([p for p in all_notebooks() if p.parent.name == "notebooks"])
    assert solutions == [False] * len(solutions) and len(solutions) == len(folded)
    assert not any(folded) and len(folded) <= chapters
    assert max(len(name) for name, visible, _ in entries if not visible) < 20


def test_a_printed_page_has_title_and_text_and_leads_to_the_published_book(
    browser, site
):
    browser.look(1000, 1400, "light")
    title, printed = print_page(browser, f"{site}/book/intro.html")
    assert title == "Can a neural network be inverted?"
    text = " ".join(" ".join(page.extract_text() for page in printed.pages).split())
    assert title in text and "What is in the book" in text
    links = [note["/A"]["/URI"] for page in printed.pages for note in page["/Annots"]]
    assert len(links) > 5 and not [link for link in links if site in link]


def pages_with(folder: Path, text: str) -> list[str]:
    texts = {page: (folder / f"{page}.html").read_text("utf-8") for page in pages()}
    return [page for page, whole in texts.items() if text in whole]


def test_a_quiz_answers_a_click_and_the_page_holds_no_answer(browser, site, built):
    found = pages_with(built, 'class="ni-quiz')
    assert len(found) >= PAGES_WITH_QUIZ, "a chapter asks no question"
    for page in found:
        browser.look(*SIZES["wide"], "light")
        browser.visit(f"{site}/{page}.html")
        text = "document.querySelector('main').textContent"
        before = browser.evaluate(text)
        replies = browser.evaluate(
            "[...document.querySelectorAll('.ni-quiz button')].map(button => "
            "{ button.click(); return button.closest('.ni-quiz')"
            ".querySelector('[aria-live]').textContent; })"
        )
        assert all(reply.startswith(("\u2713", "\u2717")) for reply in replies)
        for reply in replies:
            sentence = reply.partition(". ")[2]
            assert len(sentence.split()) >= 4, f"{page}: {reply}"
            assert sentence not in before, f"{page} gives the answer away: {reply}"
        assert complaints(browser.events, site) == []


def test_sliders_change_the_picture_by_keyboard_without_a_kernel(browser, site, built):
    found = pages_with(built, 'class="ni-explorer')
    assert found, "no chapter shows a slider"
    for page in found:
        browser.look(*SIZES["wide"], "light")
        browser.visit(f"{site}/{page}.html")
        count = browser.evaluate("document.querySelectorAll('.ni-explorer').length")
        for number in range(count):
            check_explorer(browser, number)
        assert complaints(browser.events, site) == []


def check_explorer(browser, number: int) -> None:
    """Home, right, left and End move every slider; every button changes the picture."""
    root = f"document.querySelectorAll('.ni-explorer')[{number}]"
    picture = f"{root}.querySelector('img').src"
    browser.evaluate(f"{root}.scrollIntoView()")
    for control in range(browser.evaluate(f"{root}.querySelectorAll('input').length")):
        browser.evaluate(f"{root}.querySelectorAll('input')[{control}].focus()")
        seen = []
        for key in ("Home", "ArrowRight", "ArrowLeft", "End"):
            browser.press(key)
            seen.append(browser.evaluate(picture))
        first, second, back, last = seen
        assert second != first and last != first, "the picture did not change"
        assert back == first
    buttons = f"{root}.querySelectorAll('[aria-pressed=false]')"
    if browser.evaluate(f"{buttons}.length"):
        before = browser.evaluate(picture)
        browser.evaluate(f"{buttons}[0].focus()")
        browser.press("Enter")
        assert browser.evaluate(picture) != before, "the button changed nothing"
