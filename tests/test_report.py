"""Reports of finished runs: reading, drawing, printing, and damaged files."""

import base64
import csv
import hashlib
import html
import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from nasjax.errors import ConfigError
from nasjax.objectives import Objective
from nasjax.report import read_run, write_report
from nasjax.report.formatting import column_heading, format_architecture, format_number, units_of
from nasjax.report.hypervolume import hypervolume_curve
from nasjax.report.page import page
from nasjax.report.plots import front_figure, hypervolume_figure, panels, ticks
from nasjax.report.terminal import MAX_ROWS, front_table

ACCURACY = {"name": "accuracy_top1", "direction": "max", "unit": "%", "reference": 0.0}
LATENCY = {"name": "latency", "direction": "min", "unit": "ms", "reference": 50.0}
MACS = {"name": "macs", "direction": "min", "unit": "", "reference": 1e9}
SPEED = {"name": "throughput", "direction": "max", "unit": "images/s", "reference": 0.0}
LOSS = {"name": "loss", "direction": "min", "unit": "", "reference": 9.0}
GENES = ["depth", "kernel_1", "kernel_2", "kernel_3", "act"]
EVIL = "<script>alert('x & \"y\"')</script>"


def dominates(a, b, objectives):
    signs = [-1 if o["direction"] == "max" else 1 for o in objectives]
    pairs = [(s * a[o["name"]], s * b[o["name"]]) for s, o in zip(signs, objectives, strict=True)]
    return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)


def write_rows(path, rows):
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], restval="")
        writer.writeheader()
        writer.writerows(rows)


def write_run(folder: Path, objectives, count=30, failed=(3, 7), supernet="ofa_mbv3", tests=True) -> Path:
    """Writes an invented run, in which larger networks are slower and better, with noise."""
    folder.mkdir(parents=True)
    draw = random.Random(0)
    rows = []
    for index in range(count):
        size = draw.random()
        quality = 60 + 20 * size**0.5 - 5 * draw.random()
        depth = 1 + int(3 * size)
        kernels = {f"kernel_{i}": draw.choice([3, 5, 7]) if i <= depth else "" for i in (1, 2, 3)}
        values = {
            "accuracy_top1": quality,
            "latency": 2 + 20 * size,
            "macs": int(5e7 + 5e8 * size * draw.uniform(0.9, 1.1)),
            "throughput": 1000 / (2 + 20 * size),
            "loss": 5 - quality / 20,
        }
        values = {o["name"]: values[o["name"]] for o in objectives}
        errors = {"accuracy_top1_se": 0.4} if ACCURACY in objectives else {}
        if index in failed:
            values, errors = dict.fromkeys(values, ""), dict.fromkeys(errors, "")
        act = EVIL if index == 5 else "relu"
        about = {"status": "failed" if index in failed else "ok", "source": "archive" if index % 9 == 0 else "measured"}
        rows.append(
            {"index": index, "step": index // 10, **about, "depth": depth, **kernels, "act": act, **values, **errors}
        )
        rows[-1]["seconds"] = 0.5
    write_rows(folder / "evaluations.csv", rows)
    fine = [row for row in rows if row["status"] == "ok"]
    best = [row for row in fine if not any(dominates(other, row, objectives) for other in fine)]
    columns = ["index", *GENES, *(o["name"] for o in objectives)] + (["accuracy_top1_se"] if ACCURACY in objectives else [])
    front = [{column: row[column] for column in columns} for row in best]
    if tests and ACCURACY in objectives:
        for row in front:
            row.update(test_accuracy_top1=row["accuracy_top1"] - 0.7, test_accuracy_top1_se=0.3)
    if front:
        write_rows(folder / "pareto.csv", front)
    else:
        (folder / "pareto.csv").write_text(",".join(columns) + "\n")
    config = {"supernet": {"name": EVIL}, "tactic": {"name": "random"}, "seed": 0, "evaluations": count}
    config |= dict.fromkeys(("task", "evaluator", "archive"))
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    summary = {
        "supernet": supernet,
        "task": None,
        "tactic": "concurrent",
        "seed": 1,
        "evaluations": count,
        "failed": len(failed),
        "from_archive": 4,
        "space_size": "21837000000000000000",
        "genes": GENES,
        "metrics": [o["name"] for o in objectives],
        "objectives": objectives,
        "hypervolume": [100 * (1 - 0.9**i) for i in range(count)],
        "seconds": {"total": 75.5, "evaluation": 60.0, "search": 9.5},
        "version": "0.1.0",
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


class Page(HTMLParser):
    """Elements of a page as (tag, attributes), whether tags match, and the text."""

    VOID = ("meta", "br")

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.words = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), tuple(self.open)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), tuple(self.open)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def of(self, name):
        """Attributes of all elements of one class."""
        return [attrs for _, attrs, _ in self.elements if name in attrs.get("class", "").split()]


SEARCHES = {
    "one_max": [ACCURACY],
    "one_min": [LATENCY],
    "two": [ACCURACY, LATENCY],
    "two_max": [ACCURACY, SPEED],
    "two_min": [MACS, LOSS],
    "three": [LATENCY, ACCURACY, MACS],
    "four": [ACCURACY, LATENCY, MACS, LOSS],
}


@pytest.fixture(params=SEARCHES)
def folder(request, tmp_path):
    return write_run(tmp_path / request.param, SEARCHES[request.param])


def test_the_page_needs_nothing_from_outside(folder):
    text = write_report(folder).read_text(encoding="utf-8")
    assert "http://" not in text and "https://" not in text and "@import" not in text and "url(" not in text
    found = Page(text)
    assert not {tag for tag, _, _ in found.elements} & {"link", "img", "iframe", "object", "base"}
    (script,) = re.findall("<script>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [a["content"] for _, a, _ in found.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    names = {attrs["id"] for _, attrs, _ in found.elements if "id" in attrs}
    for _, attrs, _ in found.elements:
        assert "src" not in attrs
        assert attrs.get("href", "#front").removeprefix("#") in names
        assert not any(name.startswith("on") for name in attrs)
    assert sorted(p.name for p in folder.glob("*") if p.suffix in (".png", ".html")) == [
        "front.png",
        "hypervolume.png",
        "report.html",
    ]
    assert not list(folder.glob(".*"))


def test_every_measured_network_is_drawn_once_and_those_of_the_front_stand_out(folder):
    run = read_run(folder)
    found = Page(page(run))
    scatters = re.findall(r'<svg class="scatter".*?</svg>\n</svg>', page(run), flags=re.DOTALL)
    assert len(scatters) == len(panels(run)) == (1 if len(run.objectives) < 3 else 3)
    ok = sorted(n.index for n in run.evaluations if not n.failed)
    best = sorted(n.index for n in run.front)
    for scatter in scatters:
        points = Page(scatter)
        assert sorted(int(p["data-index"]) for p in points.of("point")) == ok
        assert sorted(int(p["data-index"]) for p in points.of("front")) == best
        assert sorted(int(p["data-index"]) for p in points.of("dominated")) == sorted(set(ok) - set(best))
        # The front is in view; what is far from it is beyond the edges.
        assert all(64 <= float(p["cx"]) <= 606 and 12 <= float(p["cy"]) <= 394 for p in points.of("front"))
    assert [attrs["id"] for tag, attrs, _ in found.elements if tag == "tr" and "id" in attrs] == [
        f"network-{n.index}" for n in run.front
    ]


def test_the_page_says_when_by_what_and_where_a_search_was_made(tmp_path):
    folder = write_run(tmp_path / "run", SEARCHES["two"])
    summary = json.loads((folder / "summary.json").read_text())
    summary["made"] = {"finished": "2031-05-06 07:08:09 +0000", "device": "<Processor>", "git commit": None}
    (folder / "summary.json").write_text(json.dumps(summary))
    text = page(read_run(folder))
    assert "2031-05-06 07:08:09 +0000" in text and "&lt;Processor&gt;" in text and "git commit" not in text
    for damaged in (3, "ab", ["x"], {"device": {"a": 1}}):
        (folder / "summary.json").write_text(json.dumps(summary | {"made": damaged}))
        with pytest.raises(ConfigError, match=r"summary\.json"):
            read_run(folder)


@pytest.mark.parametrize(("task", "there"), [("digits", True), ("in memory", False), (None, False)])
def test_a_card_has_the_command_that_extracts_its_network(tmp_path, task, there):
    folder = write_run(tmp_path / "my run", SEARCHES["two"])
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"task": task}))
    run = read_run(folder)
    text = html.unescape(page(run))
    for network in run.front:
        command = f"nasjax extract run='{folder}' network={network.index}<"
        assert (command in text) == there and (f'data-copy="command-{network.index}"' in text) == there


def test_the_header_gives_the_hypervolume_as_the_curve_does(folder):
    found = read_run(folder)
    curve = hypervolume_curve(found)
    (title, shown) = re.search('<dt>hypervolume</dt><dd><span title="([^"]*)">([^<]*)<', page(found)).groups()
    assert float(title) == pytest.approx(found.hypervolume[-1], rel=1e-5)
    share = f"{curve.values[-1]:.1f} % of the front's box"
    assert html.unescape(shown) == (share if len(found.objectives) > 1 else format_number(found.hypervolume[-1]))


def test_the_hypervolume_curve_has_one_point_per_evaluation(folder):
    run = read_run(folder)
    found = Page(page(run))
    assert len(found.of("curve")[0]["points"].split()) == len(found.of("validation")) == len(run.evaluations) == 30
    heights = [float(point.split(",")[1]) for point in found.of("curve")[0]["points"].split()]
    assert heights == sorted(heights, reverse=True)
    assert len(hypervolume_figure(run).axes[0].lines[0].get_xdata()) == 30


def test_what_there_is_one_of_is_said_so(tmp_path):
    folder = write_run(tmp_path / "x", [ACCURACY, MACS], count=1, failed=())
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"space_size": "1"}))
    words = re.sub("<[^>]*>", " ", page(read_run(folder)))
    assert "1 network, 5 genes" in words and "after 1 evaluation:" in words
    assert not re.search(r"\b1 (genes|networks|evaluations|validations)\b", words)


def test_figures_show_every_measured_network(folder):
    run = read_run(folder)
    for axes in front_figure(run).axes[: len(panels(run))]:
        behind = len(axes.collections[0].get_offsets())
        assert behind + len(run.front) == sum(not n.failed for n in run.evaluations)
        assert run.objectives[0].unit in "".join(axes.get_xlabel() + a.get_ylabel() for a in front_figure(run).axes)


def test_the_staircase_never_passes_a_measured_network(folder):
    run = read_run(folder)
    if len(run.objectives) > 2:
        assert all(panel.corners == () for panel in panels(run))
        return
    (panel,) = panels(run)
    for x, y in panel.places.values():
        # The best height of the staircase at x or at a better x.
        reach = [
            corner[1]
            for corner in panel.corners
            if (corner[0] <= x if panel.x is None or panel.x.direction == "min" else corner[0] >= x)
        ]
        best = max(reach) if panel.y.direction == "max" else min(reach)
        assert not panel.y.beats(y, best)
    for (x0, y0), (x1, y1) in zip(panel.corners, panel.corners[1:], strict=False):
        assert x0 == x1 or y0 == y1


def test_text_is_escaped_everywhere(tmp_path):
    folder = write_run(tmp_path / "x", [LATENCY, LOSS], supernet=EVIL)
    run = read_run(folder)
    text = page(run)
    assert text.count("<script") == 1 and "&lt;script&gt;" in text
    assert EVIL in "".join(Page(text).words)
    objective = {**LATENCY, "name": "<script>$x_{$[bold]", "unit": '"><b>'}
    summary = json.loads((folder / "summary.json").read_text())
    summary["objectives"][0], summary["metrics"][0], summary["task"] = objective, objective["name"], "<i>$title"
    (folder / "summary.json").write_text(json.dumps(summary))
    for name in ("evaluations.csv", "pareto.csv"):
        head, rest = (folder / name).read_text().split("\n", 1)
        (folder / name).write_text(head.replace("latency", objective["name"]) + "\n" + rest)
    text = write_report(folder).read_text()
    assert text.count("<script") == 1 and "<b>" not in text and "<i>$title" not in text
    assert "<script>$x_{$[bold]" in printed(front_table(read_run(folder)), 200)


def printed(table, width):
    from rich.console import Console

    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


@pytest.mark.parametrize("width", [80, 120, 300])
def test_the_terminal_table_keeps_its_numbers_whole(tmp_path, width):
    run = read_run(write_run(tmp_path / "x", [ACCURACY, LATENCY]))
    lines = printed(front_table(run), width).splitlines()
    assert all(len(line) <= width for line in lines)
    assert lines[1].split() == ["accuracy_top1", "latency", "test_accuracy_top1"]
    assert lines[2].split() == ["index", "(%)", "(ms)", "(%)", "architecture"]
    for network, line in zip(run.front, lines[4:], strict=False):
        assert line.split()[0] == str(network.index)
        assert f"{network.metrics['accuracy_top1']:.2f} ± 0.40" in line


def test_the_terminal_table_says_how_many_networks_it_leaves_out(tmp_path):
    run = read_run(write_run(tmp_path / "x", [ACCURACY, LATENCY, MACS], count=400))
    assert len(run.front) > MAX_ROWS
    assert f"… and {len(run.front) - MAX_ROWS} more" in printed(front_table(run), 120)
    assert front_table(run).row_count == MAX_ROWS + 1


def test_the_front_is_sorted_best_first_and_has_test_columns(tmp_path):
    run = read_run(write_run(tmp_path / "x", [ACCURACY, LATENCY]))
    values = [n.metrics["accuracy_top1"] for n in run.front]
    assert values == sorted(values, reverse=True) and run.tests == ("test_accuracy_top1",)
    assert all(n.errors == {"accuracy_top1": 0.4, "test_accuracy_top1": 0.3} for n in run.front)
    assert "test data" in page(run) and "± 0.30" in page(run)
    without = read_run(write_run(tmp_path / "y", [ACCURACY, LATENCY], tests=False))
    assert without.tests == () and "test data" not in page(without)


def test_switched_off_genes_are_not_named(tmp_path):
    run = read_run(write_run(tmp_path / "x", [ACCURACY]))
    small = next(n for n in run.evaluations if n.genes["depth"] == "1")
    assert set(small.genes) == {"depth", "kernel_1", "act"}
    assert format_architecture(small, GENES) == f"depth=1 kernel={small.genes['kernel_1']},–,– act={small.genes['act']}"


@pytest.mark.parametrize("objectives", [[ACCURACY], [ACCURACY, LATENCY], [ACCURACY, LATENCY, MACS]])
@pytest.mark.parametrize("count", [1, 4])
def test_a_run_in_which_all_failed_still_has_a_report(tmp_path, objectives, count):
    folder = write_run(tmp_path / "x", objectives, count=count, failed=range(count))
    found = Page(write_report(folder).read_text())
    assert found.of("point") == [] and "No network could be measured." in "".join(found.words)


def test_a_run_of_one_network_has_a_report(tmp_path):
    found = Page(write_report(write_run(tmp_path / "x", [ACCURACY, MACS], count=1, failed=())).read_text())
    assert len(found.of("point")) == 1


@pytest.mark.parametrize("name", ["summary.json", "evaluations.csv", "pareto.csv", "config.yaml"])
def test_a_missing_file_is_named(tmp_path, name):
    folder = write_run(tmp_path / "x", [ACCURACY, LATENCY])
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"^{re.escape(f'{folder} has no {name}')}: .*same command again.*$"):
        read_run(folder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere is not a run folder"):
        read_run(tmp_path / "nowhere")


DAMAGES = [
    ("summary.json", lambda s: s[:50], "damaged"),
    ("summary.json", lambda s: "[]", "not an object"),
    ("summary.json", lambda s: s.replace('"seed"', '"sed"'), "lacks 'seed'"),
    ("summary.json", lambda s: s.replace('"max"', '"up"'), "max or min"),
    ("summary.json", lambda s: s.replace('"reference"', '"ref"'), "lacks 'reference'"),
    ("summary.json", lambda s: s.replace('"hypervolume": [0.0, ', '"hypervolume": ['), "'hypervolume' is not 30"),
    ("summary.json", lambda s: s.replace("75.5", "NaN"), "not finite"),
    ("summary.json", lambda s: s.replace('"21837000000000000000"', '"many"'), "'space_size'"),
    ("evaluations.csv", lambda s: "", "no column 'index'"),
    ("evaluations.csv", lambda s: s.replace("latency", "latenz", 1), "no column 'latency'"),
    ("evaluations.csv", lambda s: s[: len(s) // 2].rsplit(",", 3)[0], "columns"),
    ("evaluations.csv", lambda s: s.rstrip("\n").rsplit("\n", 1)[0] + "\n", "29 rows"),
    ("evaluations.csv", lambda s: s.replace("\n1,", "\n0,"), "index 0 occurs twice"),
    ("evaluations.csv", lambda s: s.replace(",0.4,", ",much,"), "'much', not a number"),
    ("evaluations.csv", lambda s: s + '"', "damaged"),
    ("pareto.csv", lambda s: s + "3," + s.splitlines()[1].split(",", 1)[1] + "\n", "network 3 is not among"),
    ("pareto.csv", lambda s: "\n".join([s.splitlines()[0], "0" + "," * s.splitlines()[0].count(",")]), "is empty"),
]


@pytest.mark.parametrize("name, damage, words", DAMAGES)
def test_a_damaged_file_is_named_in_one_line(tmp_path, name, damage, words):
    folder = write_run(tmp_path / "x", [ACCURACY, LATENCY])
    before = (folder / name).read_text()
    (folder / name).write_text(damage(before))
    assert (folder / name).read_text() != before
    with pytest.raises(ValueError) as caught:
        read_run(folder)
    message = str(caught.value)
    assert message.startswith(str(folder / name)) and words in message and "same command again" in message
    assert "\n" not in message


def test_bytes_that_are_not_text_are_damage(tmp_path):
    folder = write_run(tmp_path / "x", [ACCURACY])
    (folder / "config.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"config.yaml is damaged"):
        read_run(folder)


@pytest.mark.parametrize(
    "value, error, words",
    [
        (77.1234, 0.187, "77.12 ± 0.19"),
        (77.1234, None, "77.12"),
        (287_312_345, None, "287.3M"),
        (5.0, None, "5"),
        (5.2, 0.0, "5.200 ± 0"),
        (0, None, "0"),
        (-3.25, 0.5, "-3.25 ± 0.50"),
        (1.234e-7, None, "1.234e-07"),
        (9.999999e17, None, "1.000e+18"),
        (2.5e20, 1e19, "2.500e+20 ± 1.0e+19"),
    ],
)
def test_numbers_show_four_digits_or_those_that_their_error_justifies(value, error, words):
    assert format_number(value, error) == words


def test_costs_and_timings_have_their_units_whether_or_not_they_are_objectives():
    units = units_of([Objective("latency", "min", "s"), Objective("joy", "max")])
    headings = [column_heading(name, units) for name in ("memory", "test_model_size", "macs", "latency", "joy", "other")]
    assert headings == ["memory (bytes)", "test_model_size (bytes)", "macs", "latency (s)", "joy", "other"]


@pytest.mark.parametrize("low, high", [(0, 1), (76.9, 77.1), (1e8, 9e8), (-3, 5), (1e-9, 2e-9), (0, 1e20), (123456, 123457)])
def test_ticks_lie_inside_and_differ(low, high):
    found = ticks((low, high))
    assert 3 <= len(found) <= 11 and all(low <= value <= high for value, _ in found)
    assert len({words for _, words in found}) == len(found)


def test_importing_the_report_does_not_import_matplotlib():
    import subprocess
    import sys

    code = "import sys, nasjax.report.page, nasjax.report.plots, nasjax.report.terminal; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"matplotlib", "rich", "jax"} & set(loaded)
