"""Counts with their nouns: one is singular, wherever a count is shown."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np

import nasjax
from nasjax.report.live_pages import _progress
from nasjax.words import plural

PACKAGE = Path(nasjax.__file__).parent


def test_one_is_singular_and_thousands_are_separated():
    assert [plural(number, "network") for number in (0, 1, 2, 1234)] == [
        "0 networks",
        "1 network",
        "2 networks",
        "1,234 networks",
    ]
    assert plural("1", "gene") == "1 gene" and plural("2 × 10¹⁹", "gene") == "2 × 10¹⁹ genes"


def test_a_front_and_the_line_of_a_run_have_one_evaluation():
    goals = (SimpleNamespace(name="acc", unit="%"),)
    front = nasjax.Front(None, goals, np.zeros(1), np.zeros((1, 1)), {"acc": np.ones(1)}, 0.0, None, None, {"index": [0]})
    assert repr(front) == "Front of 1 network, of 1 evaluation: acc 1 to 1 %"
    runs = [SimpleNamespace(done=1, planned=planned, kind=kind) for planned, kind in ((1, "search"), (None, "training"))]
    assert [_progress(run) for run in runs] == ["1 of 1 evaluation", "1 epoch"]


def test_no_count_that_is_shown_has_a_fixed_plural():
    files = [file for ending in ("py", "html") for file in PACKAGE.rglob(f"*.{ending}")]
    fixed = re.compile(r"(\}|\$\w+) (evaluations|runs|jobs|networks that|images that)\b|'s' \* \(")
    found = [f"{file.name}: {m[0]}" for file in files for m in fixed.finditer(file.read_text(encoding="utf-8"))]
    assert found == []
