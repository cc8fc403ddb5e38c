"""What a class gets back: grades.csv, a page for each student, and who is alike."""

from __future__ import annotations

import base64
import csv
import difflib
import html
import io
import itertools
import tokenize
from pathlib import Path

import numpy as np

import netinvert as ni
from tools.assignments import judges

SHAPE = (28, 28, 1)
ALIKE = 0.85  # honest pairs were seen at 0.78
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: {student}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 46em; margin: 2em auto;
  padding: 0 1em; color: #222; background: #fff; }}
table {{ border-collapse: collapse; width: 100%; }}
td, th {{ border-bottom: 1px solid #ccc; padding: .4em .6em; text-align: left;
  vertical-align: top; }}
td:nth-child(2) {{ white-space: nowrap; }}
pre {{ white-space: pre-wrap; background: #f4f4f4; padding: .6em; }}
img {{ max-width: 100%; }} .held {{ background: #fff3cd; padding: .6em; }}
</style></head><body>
<h1>{title}</h1>
<p>{student}: <strong>{total}</strong> of {most} points by the program, and up to
{explanation} for the explanation, from a person.</p>
{held}<table><tr><th>task</th><th>points</th><th>what was found</th></tr>
{rows}</table>
{rest}</body></html>
"""


def picture(judge, answers: dict, case) -> str:
    """The pictures that were handed in, drawn, as base64; empty if there are none."""
    rows = {
        name: np.clip(value, 0, 1)
        for name, value in judge.pictures(answers, case).items()
        if isinstance(value, np.ndarray)
        and value.ndim == 4
        and value.shape[1:] == SHAPE
        and 0 < len(value)
        and np.isfinite(value).all()
    }
    if not rows:
        return ""
    count = min(12, *map(len, rows.values()))
    figure = ni.plots.compare({name: value[:count] for name, value in rows.items()})
    return base64.b64encode(ni.plots.figure_png(figure)).decode()


def held(result: dict) -> bool:
    """Whether a person has to look before points are given."""
    return bool(result["flags"]) and not result.get("accepted")


def total(result: dict) -> float:
    points = sum(points for points, _, _ in result["tasks"].values())
    return 0.0 if held(result) else round(points, 1)


def page(name: str, student: str, result: dict) -> str:
    """One page of feedback; every word that a student may have written is escaped."""
    judge, escape = judges.load(name), html.escape
    rows = [
        f"<tr><td>{escape(task)}</td><td>{points:g} of {of}</td>"
        f"<td>{escape(said)}</td></tr>\n"
        for task, (points, of, said) in result["tasks"].items()
    ]
    rest = ""
    for heading, lines in (
        ("Remarks", result["remarks"]),
        ("Cells that stopped with an error", result["errors"]),
    ):
        if lines:
            items = "".join(f"<li>{escape(line)}</li>\n" for line in lines)
            rest += f"<h2>{heading}</h2>\n<ul>{items}</ul>\n"
    if result["picture"]:
        rest += (
            '<h2>Your pictures</h2>\n<img alt="The pictures that you handed in" '
            f'src="data:image/png;base64,{result["picture"]}">\n'
        )
    if result["explanation"]:
        rest += (
            f"<h2>Your explanation</h2>\n<pre>{escape(result['explanation'])}</pre>\n"
        )
    reasons = escape("; ".join(result["flags"]))
    stop = f'<p class="held">No points before a person has looked: {reasons}.</p>'
    return PAGE.format(
        title=escape(f"Assignment {int(name[:2])}: {judge.TITLE}"),
        student=escape(student),
        total=f"{total(result):g}",
        most=sum(judge.TASKS.values()),
        explanation=judges.EXPLANATION,
        held=stop if held(result) else "",
        rows="".join(rows),
        rest=rest,
    )


def plain(value) -> str:
    """Text that no spreadsheet takes for a formula."""
    text = " ".join(str(value).split())
    return (
        f"'{text}"
        if text[:1] in tuple("=+-@") and not isinstance(value, float)
        else text
    )


def write(name: str, results: dict, reference: str, into: Path) -> None:
    """Write grades.csv, alike.csv and feedback/STUDENT.html below a folder."""
    judge = judges.load(name)
    columns = ["student", "assignment", "score", "max_score", *judge.TASKS]
    columns += ["explanation", "needs_a_look", "remarks", "seconds"]
    with open(into / "grades.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for student, result in results.items():
            points = [
                0.0 if held(result) else p for p, _, _ in result["tasks"].values()
            ]
            most = sum(judge.TASKS.values()) + judges.EXPLANATION
            row = [student, name, total(result), most, *points, ""]
            row += ["; ".join(result["flags"]) if held(result) else ""]
            row += ["; ".join([*result["remarks"], *result["errors"]])[:2000]]
            writer.writerow([plain(value) for value in [*row, result["seconds"]]])
    (into / "feedback").mkdir(exist_ok=True)
    for student, result in results.items():
        text = page(name, student, result)
        (into / "feedback" / f"{student}.html").write_text(text, "utf-8")
    codes = {student: result["code"] for student, result in results.items()}
    with open(into / "alike.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["likeness", "one", "other", "look"])
        for ratio, one, other in likeness({"THE REFERENCE": reference} | codes):
            row = [f"{ratio:.2f}", one, other, "yes" if ratio >= ALIKE else ""]
            writer.writerow([plain(value) for value in row])


def words_of(code: str) -> list[str]:
    """The words of a program: no comments, no spaces, every own name the same."""
    left_out = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT)
    left_out += (tokenize.DEDENT, tokenize.ENDMARKER)
    names, words = {}, []
    try:
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            if token.type in left_out:
                continue
            text = token.string
            if token.type == tokenize.NAME and text.isidentifier():
                text = names.setdefault(text, f"n{len(names)}")
            words.append(text)
        return words
    except (tokenize.TokenError, SyntaxError):
        return code.split()


def likeness(codes: dict) -> list[tuple[float, str, str]]:
    """How alike the programs are, by pairs, from the most alike down."""
    words = {name: words_of(code) for name, code in codes.items()}
    words = {name: found for name, found in words.items() if len(found) >= 40}
    pairs = []
    for one, other in itertools.combinations(words, 2):
        matcher = difflib.SequenceMatcher(
            None, words[one], words[other], autojunk=False
        )
        if matcher.quick_ratio() >= 0.6:
            pairs.append((matcher.ratio(), one, other))
    return sorted(pairs, reverse=True)[:200]


def board(name: str, results: dict, final: bool) -> list[tuple]:
    """Rank methods on the public half of the secret targets, or on the other half.

    Equal rank with the best above, unless the paired 95 % interval excludes 0.
    """
    public = judges.load(name).PUBLIC
    half = slice(public, None) if final else slice(public)
    entries = []
    for student, result in results.items():
        if result.get("board") and not held(result):
            shown = {k: np.array(v, float)[half] for k, v in result["board"].items()}
            entries.append((shown["psnr"].mean(), student, shown))
    rows, rank, leader = [], 0, None
    for place, (mean, student, shown) in enumerate(sorted(entries, reverse=True), 1):
        if leader is not None:
            middle, width = ni.metrics.mean_and_interval(leader - shown["psnr"])
        if leader is None or middle - width > 0:
            rank, leader = place, shown["psnr"]
        reached = int(shown["fits"].sum())
        rows.append((rank, student, round(mean, 2), reached, shown["read"].mean()))
    return rows
