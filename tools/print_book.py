"""Print the built pages into one PDF: ``make pdf`` writes ``_build/book.pdf``.

A headless Chromium prints each page of ``_build/html`` in the order of the table of
contents; the files are joined, with a bookmark for every page and every heading.
"""

from __future__ import annotations

import base64
import io
import re
import sys

from pypdf import PdfReader, PdfWriter

from tests.browser import find_chromium, open_page
from tools.environment import ROOT

HTML = ROOT / "_build" / "html"
# Links to other pages lead to the published book, not to this computer's files. The
# theme's own table of contents for print would repeat the bookmarks.
PREPARE = """
(() => {
  document.getElementById("print-main-content")?.remove();
  document.querySelectorAll(".headerlink, .prev-next-footer").forEach(e => e.remove());
  document.querySelectorAll("details").forEach(e => { e.open = true; });
  const home = document.querySelector("link[rel=canonical]").href;
  document.querySelectorAll("a[href]").forEach(a => {
    const address = a.getAttribute("href");
    if (!/^(#|[a-z]+:)/.test(address)) a.href = new URL(address, home);
  });
  return document.querySelector("article h1").firstChild.textContent.trim();
})()
"""
PAPER = {"paperWidth": 8.27, "paperHeight": 11.69, "scale": 0.8}  # inches: A4
MARGINS = dict.fromkeys(("marginTop", "marginBottom", "marginLeft", "marginRight"), 0.7)
FOOTER = '<p style="font-size:8px;width:100%;text-align:center">{}</p>'


def pages() -> list[str]:
    """Names of the pages in reading order; solutions follow their chapters."""
    return re.findall(r"(?:file|root): (\S+)", (ROOT / "_toc.yml").read_text("utf-8"))


def print_page(browser, address: str) -> tuple[str, PdfReader]:
    """Title of a page, and the page as a PDF."""
    browser.visit(address)
    title = browser.evaluate(PREPARE)
    printed = browser.send(
        "Page.printToPDF",
        **PAPER,
        **MARGINS,
        printBackground=True,
        generateDocumentOutline=True,
        displayHeaderFooter=True,
        headerTemplate="<p></p>",
        footerTemplate=FOOTER.format(title),
    )
    return title, PdfReader(io.BytesIO(base64.b64decode(printed["data"])))


def main() -> None:
    chromium = find_chromium()
    if chromium is None or not (HTML / "index.html").exists():
        sys.exit(
            "Printing needs Chromium and the built pages: `make html` builds them."
        )
    book = PdfWriter()
    with open_page(chromium) as browser:
        browser.look(1000, 1400, "light")
        for page in pages():
            title, printed = print_page(browser, (HTML / f"{page}.html").as_uri())
            book.append(printed, outline_item=title)
    book.add_metadata({"/Title": "Can a neural network be inverted?"})
    target = ROOT / "_build" / "book.pdf"
    book.write(target)
    print(f"wrote {target.relative_to(ROOT)}: {len(book.pages)} pages")


if __name__ == "__main__":
    main()
