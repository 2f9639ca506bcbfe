"""The pages that `nasjax report --watch` serves: all runs of a folder, each run, and comparisons; each loads itself anew.

Only what `overview.entries` lists has a page, by its name there: no path of a request is looked up on the disk.
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote

from nasjax.errors import ConfigError
from nasjax.host import read_text
from nasjax.report.compare import compare, comparison_page
from nasjax.report.formatting import format_duration, format_number
from nasjax.report.overview import Entry, entries
from nasjax.report.page import TEMPLATES, page
from nasjax.report.traces import folder_traces
from nasjax.report.training import PAGE
from nasjax.runs.reader import read_latest
from nasjax.version import __version__
from nasjax.words import plural

SCRIPT = "/follow.js"

POLICY = re.compile('(?<=<meta http-equiv="Content-Security-Policy" content=")[^"]*')
"""What a page may load and run."""

COUNTED = {"search": "evaluations", "seeds": "seeds", "training": "epochs"}
"""What a run of each kind is counted in."""

HEADS = {
    "search": ("run", "state", COUNTED["search"], "hypervolume", "time", "super-network", "tactic"),
    "seeds": ("run", "state", COUNTED["seeds"], "time", "super-network", "tactic"),
    "training": ("run", "state", COUNTED["training"], "time", "network", "trainer"),
}
"""The columns of the list of each kind."""


@dataclass(frozen=True)
class Answer:
    """What a path is answered by: `content` makes it, which changes whenever `version` does.

    `content` raises ConfigError or OSError where a file is damaged, or was removed meanwhile.
    """

    content: Callable[[], str]
    version: str
    status: int = 200
    kind: str = "text/html"


def answer(root: Path, path: str) -> Answer:
    """What is at a path: `/`, `/run/NAME`, `/comparison/KEY`, or the script of all pages; a note where there is nothing."""
    if path == SCRIPT:
        return Answer(partial((TEMPLATES / "follow.js").read_text, encoding="utf-8"), "1", kind="text/javascript")
    every = entries(root)
    if path == "/":
        version = _joined(every)
        return Answer(lambda: followed(_index(root, every), version, "renewed while searches run", home=False), version)
    if entry := next((entry for entry in every if path == f"/run/{entry.name}"), None):
        line = " · ".join(filter(None, (entry.state, _progress(entry))))
        return Answer(lambda: followed(_run(root, entry), entry.version, line), entry.version)
    if compared := next((of for key, of in comparable(every).items() if path == f"/comparison/{key}"), None):
        version = _joined(compared)
        line = f"{plural(len(compared), 'run')}, all over"
        return Answer(lambda: followed(_comparison(compared), version, line), version)
    return Answer(lambda: followed(note("There is no such page"), "none", "not found"), "none", 404)


def comparable(every: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Searches that can be compared, by a key for each comparison: of one super-network on one task, with equal
    settings of both, for the same objectives, two at least; those that run are left out."""
    found: dict[str, list[Entry]] = {}
    for entry in every:
        if entry.kind != "training" and entry.state != "running" and entry.done:
            key = sha256(repr((entry.problem, entry.objectives)).encode()).hexdigest()[:8]
            found.setdefault(key, []).append(entry)
    return {key: of for key, of in found.items() if len(of) > 1}


def followed(html: str, version: str, line: str, home: bool = True) -> str:
    """A page with a `line` above it, and with the script that loads it anew once the server has another version."""

    def loosened(policy: re.Match[str]) -> str:
        directives = dict(words.split(" ", 1) for words in policy[0].split("; "))
        directives |= {"script-src": f"{directives.get('script-src', '')} 'self'".strip(), "connect-src": "'self'"}
        return "; ".join(f"{name} {value}" for name, value in directives.items())

    link = '<a href="/">All runs</a> ' if home else ""
    above = f'<body>\n<nav class="followed">{link}<span>{escape(line)}</span></nav>'
    below = f'<script src="{SCRIPT}" data-version="{version}"></script>\n</body>'
    html = POLICY.sub(loosened, html, count=1).replace("<body>", above, 1)
    return below.join(html.rsplit("</body>", 1))


def note(text: str) -> str:
    """A page of one sentence."""
    return _filled("nasjax", f"{text}.")


def _filled(title: str, counts: str, sections: str = "") -> str:
    return Template((TEMPLATES / "index.html").read_text(encoding="utf-8")).substitute(
        style=(TEMPLATES / "style.css").read_text(encoding="utf-8"),
        title=escape(title),
        counts=escape(counts),
        sections=sections,
        version=escape(__version__),
    )


def _index(root: Path, every: Sequence[Entry]) -> str:
    """All runs of the folder, and links to their comparisons."""
    states = ["damaged" if entry.damage else entry.state for entry in every]
    counts = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states))) or "There are no runs here so far."
    links = "".join(f"<li>{_comparison_link(key, of)}</li>" for key, of in comparable(every).items())
    sections = [_table("Searches", "search", every), _table("Searches with many seeds", "seeds", every)]
    sections.append(f"<h2>Comparisons</h2>\n<ul>{links}</ul>" if links else "")
    sections.append(_table("Trainings", "training", every))
    return _filled(f"Runs in {root}", counts, "\n".join(sections))


def _table(title: str, kind: str, every: Sequence[Entry]) -> str:
    """All runs of one kind; nothing without any."""
    of_kind = [entry for entry in every if entry.kind == kind]
    if not of_kind:
        return ""
    head = "".join(f"<th>{head}</th>" for head in HEADS[kind])
    rows = "".join(map(_row, of_kind))
    return f'<h2>{title}</h2>\n<div class="scroll"><table class="runs">\n<tr>{head}</tr>\n{rows}</table></div>'


def _row(entry: Entry) -> str:
    hypervolume = "–" if entry.hypervolume is None else format_number(entry.hypervolume)
    cells = [
        f'<a href="{_address(entry)}">{escape(entry.name)}</a>',
        f'<span class="{entry.state}" title="{escape(entry.damage)}">{"damaged" if entry.damage else entry.state}</span>',
        _bar(entry),
        *([hypervolume] if entry.kind == "search" else []),
        "–" if entry.seconds is None else format_duration(entry.seconds),
        escape(entry.subject),
        escape(entry.method),
    ]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>\n"


def _bar(entry: Entry) -> str:
    """How far a run is, as text and, where it runs, as a bar."""
    if entry.done is None and entry.planned is None:
        return "–"
    text = f"{entry.done or 0} of {entry.planned}" if entry.planned else str(entry.done)
    if entry.state != "running" or not entry.planned:
        return text
    return f'{text}<progress value="{entry.done or 0}" max="{entry.planned}"></progress>'


def _progress(entry: Entry) -> str:
    if entry.done is None:
        return ""
    counted = COUNTED[entry.kind].removesuffix("s")
    return f"{entry.done} of {plural(entry.planned, counted)}" if entry.planned else plural(entry.done, counted)


def _comparison_link(key: str, of: Sequence[Entry]) -> str:
    objectives = ", ".join(of[0].objectives)
    return f'<a href="/comparison/{key}">{len(of)} searches of {escape(of[0].subject)}, for {escape(objectives)}</a>'


def _run(root: Path, entry: Entry) -> str:
    """The page of a run, made from its files as they are; that of a training is the one it wrote."""
    if entry.damage:
        raise ConfigError(entry.damage)
    if entry.kind == "training":
        file = entry.folder / PAGE
        if entry.state != "running" and file.is_file() and file.resolve().is_relative_to(root.resolve()):
            return read_text(file)
        return note(f"{entry.name} has no page yet: it is written when training ends")
    if not entry.done:
        return note(f"{entry.name} has no {COUNTED[entry.kind]} so far")
    return _comparison([entry]) if entry.kind == "seeds" else page(read_latest(entry.folder))


def _comparison(compared: Sequence[Entry]) -> str:
    """The page of a comparison; of searches with many seeds every one is a run."""
    addresses = {entry.folder: _address(entry) for entry in compared}
    traces = [trace for entry in compared for trace in folder_traces(entry.folder, read_latest)]
    return comparison_page(compare(traces), addresses.get)


def _address(entry: Entry) -> str:
    return "/run/" + quote(os.fsencode(entry.name))


def _joined(every: Sequence[Entry]) -> str:
    """The version of what is made of several runs."""
    return sha256(repr([(entry.name, entry.version) for entry in every]).encode()).hexdigest()[:16]
