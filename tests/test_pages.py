"""The pages in a browser: what mouse, keys and touch do, that nothing is loaded, and that no error is reported."""

import csv
import json
import shutil
from pathlib import Path

import browser
import numpy as np
import pytest
from tables import GENES, write_table
from test_report import EVIL, SEARCHES, write_run

import nasjax
from nasjax import supernets
from nasjax.hardware.costs import cost_tables
from nasjax.report.compare import write_comparison
from nasjax.runs.reader import read_run

pytestmark = pytest.mark.skipif(browser.PROGRAM is None, reason="there is no Chromium here (apt-get install chromium)")

SHOWN = "[...document.querySelectorAll('.card')].filter(c => c.checkVisibility({visibilityProperty: true}))"

SHOW = (
    "document.querySelector('.point[data-index=\"{}\"]').dispatchEvent(new PointerEvent('pointerover', {{bubbles: true}}))"
)
"""Points at a network, also where others lie above it."""


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser.tab(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def run(tiny_run):
    """A finished run of a super-network of stages, with its page."""
    return written(tiny_run)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A tabular super-network, of which only the genes are known."""
    return supernets.create("tabular", table=write_table(tmp_path_factory.mktemp("table") / "table.csv"), genes=GENES)


def written(folder):
    """Writes the page of a run folder; returns the run."""
    nasjax.report.write_report(folder)
    return read_run(folder)


def opened(tab, page, **how):
    """Opens a file; returns its address."""
    tab.open(page.as_uri(), **how)
    return page.as_uri()


def shown(tab):
    """The indices of the networks whose cards are visible."""
    return tab.value(f"{SHOWN}.map(c => Number(c.dataset.index))")


def text(tab, selector):
    return tab.value(f"document.querySelector({json.dumps(selector)}).innerText")


def count(tab, selector):
    """The number of visible elements with a size that match the selector."""
    return tab.value(
        f"[...document.querySelectorAll({json.dumps(selector)})].filter(e => e.checkVisibility({{visibilityProperty: true}})"
        " && e.getBoundingClientRect().width > 2 && e.getBoundingClientRect().height > 2).length"
    )


def quiet(tab, address):
    """Whether the page wrote nothing to the console and loaded nothing but itself."""
    return tab.complaints == [] and set(tab.addresses) == {address}


@pytest.mark.parametrize("dark", [False, True])
def test_pointing_at_a_point_shows_that_network_beside_the_largest(tab, run, tiny_net, dark):
    address = opened(tab, run.folder / "report.html", dark=dark)
    macs = cost_tables(tiny_net)["macs"]
    largest = macs.exact(tiny_net.space.largest()[None]).item()
    assert len(run.front) > 1
    for network in reversed(run.front):
        tab.point(f".point.front[data-index='{network.index}']")
        assert shown(tab) == [network.index]
        card = f".card[data-index='{network.index}']"
        depths = int(network.genes["depth_1"]) + int(network.genes["depth_2"])
        assert count(tab, f"{card} .block:not(.off)") == depths
        assert count(tab, f"{card} .block") == count(tab, ".largest .block:not(.off)") == 4
        assert f"{100 * network.metrics['macs'] / largest:.0f} % of the largest" in text(tab, card)
        assert f"{network.metrics['accuracy_top1']:.1f}" in text(tab, card)
        kernels = [option for name, option in network.genes.items() if name.startswith("kernel")]
        assert tab.value(f'[...document.querySelectorAll("{card} .block b")].map(b => b.innerText)') == kernels
    assert "not measured in this run" in text(tab, ".largest")
    assert quiet(tab, address)


def test_the_height_of_a_block_is_its_expand_ratio(tab, run):
    opened(tab, run.folder / "report.html")
    for network in run.front:
        heights = tab.value(
            f"[...document.querySelectorAll(\".card[data-index='{network.index}'] .block:not(.off)\")]"
            ".map(b => b.getBoundingClientRect().height / b.parentElement.clientHeight)"
        )
        ratios = [int(option) / 6 for name, option in network.genes.items() if name.startswith("expand")]
        np.testing.assert_allclose(heights, ratios, atol=0.02)


def test_keys_do_what_the_mouse_does(tab, run):
    address = opened(tab, run.folder / "report.html")
    seen = []
    for _ in run.front:
        tab.key("Tab")
        focused = tab.value("Number(document.activeElement.dataset.index)")
        assert shown(tab) == [focused]
        seen.append(focused)
    assert sorted(seen) == sorted(network.index for network in run.front)
    tab.key("Enter")
    assert count(tab, f".card.kept[data-index='{seen[-1]}']") == 1
    assert quiet(tab, address)


def test_a_dominated_network_has_its_card_too(tab, run, tiny_net):
    address = opened(tab, run.folder / "report.html")
    front = [network.index for network in run.front]
    dominated = [network for network in run.evaluations if network.index not in front and not network.failed]
    for network in dominated[:6]:
        tab.value(SHOW.format(network.index))
        assert shown(tab) == [network.index]
        card = f".card[data-index='{network.index}']"
        depths = int(network.genes["depth_1"]) + int(network.genes["depth_2"])
        assert count(tab, f"{card} .block:not(.off)") == depths and count(tab, f"{card} .block") == 4
        assert f"{network.metrics['accuracy_top1']:.1f}" in text(tab, card) and "dominated by" in text(tab, card)
        kernels = [option for name, option in network.genes.items() if name.startswith("kernel")]
        assert tab.value(f'[...document.querySelectorAll("{card} .block b")].map(b => b.innerText)') == kernels
    # A card that the script makes is as those in the page are, but for its status.
    first = f".card[data-index='{front[0]}']"
    drawn = f"document.querySelector(\"{first}\").querySelector('.network').innerHTML"
    made = f"buildCard({front[0]}).querySelector('.network').innerHTML"
    assert tab.value(f"{made} === {drawn}"), tab.value(f"[{made}, {drawn}]")
    tiles = "querySelector('dl').innerHTML"
    assert tab.value(f'document.querySelector("{first}").{tiles} === buildCard({front[0]}).{tiles}')
    assert quiet(tab, address)


def test_arrow_keys_go_from_point_to_point_and_enter_keeps_one(tab, run):
    address = opened(tab, run.folder / "report.html")
    tab.key("Tab")
    seen = []
    for _ in run.evaluations:
        tab.key("ArrowLeft")
    for _ in run.evaluations:
        seen += [index for index in shown(tab) if index not in seen]
        tab.key("ArrowRight")
    places = {network.index: network.metrics["macs"] for network in run.evaluations}
    assert len(seen) > len(run.front) and [places[index] for index in seen] == sorted(places[index] for index in seen)
    for index in [network.index for network in run.front]:
        assert index in seen
    tab.key("Enter")
    assert count(tab, f".card.kept[data-index='{seen[-1]}']") == 1
    tab.key("Escape")
    assert count(tab, ".kept") == 0 and quiet(tab, address)


def in_view(tab):
    """The networks whose points are within the axes of the first plot, by what the browser has drawn."""
    return tab.value(
        "(b => [...document.querySelectorAll('.scatter')[0].querySelectorAll('.point')].filter(p => {"
        " const r = p.getBoundingClientRect(), x = r.x + r.width / 2, y = r.y + r.height / 2;"
        " return x >= b.left && x <= b.right && y >= b.top && y <= b.bottom; }).map(p => Number(p.dataset.index)).sort())"
        "(document.querySelector('.marks').getBoundingClientRect())"
    )


def test_wheel_keys_buttons_and_a_rectangle_zoom_and_all_leads_back(tab, run):
    address = opened(tab, run.folder / "report.html")
    known = sorted(network.index for network in run.evaluations if not network.failed)
    first, drawn = in_view(tab), "document.querySelector('.scatter').innerHTML"
    looked = "JSON.stringify(plots[0].view)"
    view = tab.value(looked)
    assert set(first) >= {network.index for network in run.front}
    tab.point("[data-zoom='all']", press=True)
    assert sorted(in_view(tab)) == known
    tab.point("[data-zoom='front']", press=True)
    assert in_view(tab) == first and tab.value(looked) == view
    before = tab.value(drawn)
    tab.wheel(".scatter", -120)
    tab.until(f"{looked} !== {json.dumps(view)}")
    x0, x1, y0, y1 = json.loads(tab.value(looked))
    w0, w1, v0, v1 = json.loads(view)
    assert w0 < x0 < x1 < w1 and v0 < y0 < y1 < v1 and tab.value(drawn) != before
    tab.key("0")
    assert tab.value(looked) == view and in_view(tab) == first
    tab.key("+")
    closer = json.loads(tab.value(looked))
    assert closer[1] - closer[0] == pytest.approx(0.6 * (w1 - w0))
    tab.key("-")
    assert json.loads(tab.value(looked)) == pytest.approx(json.loads(view))
    tab.key("0")
    # A rectangle about one network, from a corner far from the others.
    box = tab.value("document.querySelector('.marks').getBoundingClientRect().toJSON()")
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    kept = count(tab, ".kept")
    tab.drag((box["x"] + 2, box["y"] + 2), middle)
    half = json.loads(tab.value(looked))
    assert half[1] == pytest.approx((w0 + w1) / 2, rel=0.02) and half[2] == pytest.approx((v0 + v1) / 2, rel=0.02)
    assert count(tab, ".kept") == kept and count(tab, ".drawn-box") == 0
    tab.value("document.querySelector('.scatter').dispatchEvent(new MouseEvent('dblclick', {bubbles: true})); null")
    assert tab.value(looked) == view and quiet(tab, address)


def test_points_move_as_the_axes_do(tab, run):
    opened(tab, run.folder / "report.html")
    tab.point("[data-zoom='in']", press=True)
    labels = tab.value(
        "[...document.querySelectorAll('.axes text[text-anchor=middle]')]"
        ".map(t => [Number(t.textContent.replace('k', 'e3').replace('M', 'e6')), Number(t.getAttribute('x'))])"
    )
    (low, at_low), (high, at_high) = labels[0], labels[-1]
    network = run.front[0]
    expected = at_low + (at_high - at_low) * (network.metrics["macs"] - low) / (high - low)
    across = tab.value(f"Number(document.querySelector('.point[data-index=\"{network.index}\"]').getAttribute('cx'))")
    assert across == pytest.approx(expected, abs=0.5)


def test_a_bound_fades_what_is_outside_it(tab, run):
    address = opened(tab, run.folder / "report.html")
    fields = "[...document.querySelectorAll('.bounds input[type=number]')]"
    limit = sorted(network.metrics["macs"] for network in run.evaluations)[8]
    said = f"(f => {{ f.value = '{limit}'; f.dispatchEvent(new Event('input')); }})({fields}[1])"
    tab.value(f"{said}; null")
    left = {network.index for network in run.evaluations if network.metrics["macs"] <= limit}
    for what in (".point", "table.front tr[data-index]"):
        seen = tab.value(f"[...document.querySelectorAll('{what}:not(.out)')].map(e => Number(e.dataset.index))")
        there = tab.value(f"[...document.querySelectorAll('{what}')].map(e => Number(e.dataset.index))")
        assert set(seen) == left & set(there) and set(there) - left
    best = sum(network.index in left for network in run.front)
    assert f"{len(left)} of {len(run.evaluations)} networks left, {best} of the front" in text(tab, ".filter")
    # What is left comes first in the table of all.
    rows = tab.value("[...document.querySelectorAll('table.all tbody tr')].map(r => Number(r.dataset.index))")
    assert set(rows[: len(left)]) == left
    # The best that the slider allows is the last network.
    tab.value(
        "(s => { s.value = 0; s.dispatchEvent(new Event('input')); })(document.querySelectorAll('[type=range]')[1]); null"
    )
    least = min(network.metrics["macs"] for network in run.evaluations)
    assert tab.value(f"Number({fields}[1].value)") == pytest.approx(least, rel=1e-3)
    tab.point(".filter button", press=True)
    assert count(tab, ".out") == 0 and text(tab, ".filter output") == "" and quiet(tab, address)


def test_all_evaluations_are_listed_sorted_and_in_pages(tab, tmp_path):
    found = written(write_run(tmp_path / "run", SEARCHES["two"], count=50))
    address = opened(tab, found.folder / "report.html")
    rows = "[...document.querySelectorAll('table.all tbody tr')].map(row => Number(row.dataset.index))"
    assert tab.value(rows) == list(range(20)) and "1 to 20 of 50" in text(tab, ".everything p")
    seen = tab.value(rows)
    for _ in range(2):
        tab.point(".turn:nth-of-type(2)", press=True)
        seen += tab.value(rows)
    assert seen == list(range(50)) and tab.value("document.querySelectorAll('.turn')[1].disabled")
    column = tab.value(
        "[...document.querySelectorAll('table.all th')].findIndex(h => h.textContent.startsWith('latency')) + 1"
    )
    latency = {network.index: network.metrics["latency"] for network in found.evaluations if not network.failed}
    for reverse in (True, False):
        tab.point(f"table.all th:nth-child({column}) button", press=True)
        assert tab.value(rows) == sorted(latency, key=latency.get, reverse=reverse)[:20]
    last = tab.value(rows)[-1]
    tab.point(f"table.all tr[data-index='{last}'] a", press=True)
    assert shown(tab) == [last] and count(tab, f"table.all tr.kept[data-index='{last}']") == 1
    assert "failed" in tab.value("buildCard(3).innerText") and quiet(tab, address)


def test_a_row_shows_its_network_and_a_click_keeps_it(tab, run):
    address = opened(tab, run.folder / "report.html")
    first, second = run.front[0].index, run.front[-1].index
    tab.point(f"tr[data-index='{second}'] .network")
    assert shown(tab) == [second]
    tab.point(f"tr[data-index='{second}'] .network", press=True)
    tab.point(f".point.front[data-index='{first}']")
    assert shown(tab) == [first]
    tab.point("h1")
    assert shown(tab) == [second]
    tab.key("Escape")
    tab.point(f".point.front[data-index='{first}']")
    tab.point("h1")
    assert shown(tab) == [first]
    assert count(tab, ".kept") == 0
    assert quiet(tab, address)


def test_a_heading_sorts_the_table_both_ways(tab, run):
    address = opened(tab, run.folder / "report.html")
    rows = "[...document.querySelectorAll('table.front tbody tr')].map(row => Number(row.dataset.index))"
    macs = {network.index: network.metrics["macs"] for network in run.front}
    column = tab.value("[...document.querySelectorAll('button.sort')].findIndex(b => b.textContent.startsWith('macs')) + 1")
    for reverse, said in ((True, "descending"), (False, "ascending")):
        tab.point(f"th:nth-child({column}) button.sort", press=True)
        assert [macs[index] for index in tab.value(rows)] == sorted(macs.values(), reverse=reverse)
        assert tab.value(f"document.querySelector('th:nth-child({column})').getAttribute('aria-sort')") == said
    assert quiet(tab, address)


@pytest.mark.parametrize("name", ["pareto.csv", "evaluations.csv"])
def test_tables_and_commands_are_copied_and_saved_as_they_are(tab, run, name):
    address = opened(tab, run.folder / "report.html")
    assert tab.value(f"document.getElementById('{name}').textContent") == (run.folder / name).read_text()
    tab.value("document.execCommand = () => { window.copied = document.activeElement.value; return true; }; null")
    tab.value(
        "Object.defineProperty(navigator, 'clipboard', {value: {writeText: async () => { throw Error('no'); }}}); null"
    )
    tab.point(f"[data-copy='{name}']", press=True)
    tab.until("window.copied !== undefined")
    assert tab.value("window.copied").strip() == (run.folder / name).read_text().strip()
    tab.value("URL.createObjectURL = blob => { window.saved = blob.size; return 'data:,'; }; null")
    tab.point(f"[data-save='{name}']", press=True)
    tab.until("window.saved !== undefined")
    assert tab.value("window.saved") == (run.folder / name).stat().st_size
    # Of a task in memory, as here, no command finds the networks.
    assert count(tab, "[data-copy^='command-']") == 0 and quiet(tab, address)


def test_touching_a_point_on_a_phone_keeps_its_network(tab, run):
    address = opened(tab, run.folder / "report.html", width=390, height=844)
    network = run.front[-1].index
    tab.tap(f".point.front[data-index='{network}']")
    tab.until(f"document.querySelector(\".card.kept[data-index='{network}']\") !== null")
    assert shown(tab) == [network]
    box = tab.value(f"document.querySelector(\".card[data-index='{network}']\").getBoundingClientRect().toJSON()")
    assert box["top"] >= 0 and box["bottom"] <= 844
    assert tab.value("document.documentElement.scrollWidth") == 390
    assert quiet(tab, address)


def test_a_link_to_a_network_shows_it(tab, run):
    network = run.front[-1].index
    tab.open((run.folder / "report.html").as_uri() + f"#card-{network}")
    assert shown(tab) == [network]


def test_without_scripts_the_first_network_is_seen_and_links_lead_to_the_others(tab, run):
    address = (run.folder / "report.html").as_uri()
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(address)
        assert shown(tab) == [run.front[0].index]
        tab.open(f"{address}#card-{run.front[-1].index}")
        assert shown(tab) == [run.front[-1].index]
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)


def test_the_page_can_neither_fetch_nor_run_another_script(tab, run):
    opened(tab, run.folder / "report.html")
    assert (run.folder / "front.png").is_file()
    picture = (
        "new Promise(done => { const i = document.createElement('img'); i.src = 'front.png';"
        " i.onload = () => done('loaded'); i.onerror = () => done('refused'); document.body.append(i); })"
    )
    assert tab.value(picture) == "refused"
    assert tab.value("fetch('summary.json').then(() => 'fetched', () => 'refused')") == "refused"
    tab.value("(s => { s.textContent = 'window.broken = 1'; document.body.append(s) })(document.createElement('script'))")
    assert tab.value("window.broken === undefined")
    assert any(about["params"].get("blockedReason") == "csp" for about in tab.complaints)


def test_genes_alone_are_drawn_as_a_strip(tab, table, tmp_path):
    nasjax.search(table, objectives=["max:acc", "min:cost"], tactic="random", evaluations=30, run=tmp_path / "run")
    found = written(tmp_path / "run")
    address = opened(tab, found.folder / "report.html")
    for network in found.front:
        # Points of a table may lie upon each other; rows do not.
        tab.point(f"tr[data-index='{network.index}']")
        assert shown(tab) == [network.index]
        card = f".card[data-index='{network.index}']"
        assert count(tab, f"{card} .block:not(.off)") == len(network.genes)
        assert count(tab, f"{card} .block") == len(GENES)
    assert quiet(tab, address)


def test_a_run_from_before_drawings_has_its_page(tab, run, tmp_path):
    folder = Path(shutil.copytree(run.folder, tmp_path / "old"))
    summary = json.loads((folder / "summary.json").read_text())
    for name in ("options", "blocks", "largest"):
        del summary[name]
    (folder / "summary.json").write_text(json.dumps(summary))
    written(folder)
    address = opened(tab, folder / "report.html")
    network = run.front[-1]
    tab.point(f".point.front[data-index='{network.index}']")
    assert shown(tab) == [network.index]
    assert count(tab, f".card[data-index='{network.index}'] .block:not(.off)") == len(network.genes)
    assert quiet(tab, address)


@pytest.mark.parametrize("name", SEARCHES)
def test_any_objectives_and_any_words_make_a_quiet_page(tab, tmp_path, name):
    found = written(write_run(tmp_path / "run", SEARCHES[name], supernet=EVIL))
    address = opened(tab, found.folder / "report.html")
    tab.point(f"tr[data-index='{found.front[-1].index}']")
    assert shown(tab) == [found.front[-1].index]
    assert text(tab, "h1") == EVIL
    assert count(tab, ".point.front.shown") == (3 if len(found.objectives) > 2 else 1)
    if len(found.objectives) > 2:
        line = "document.querySelector('.across.front')"
        tab.value(f"{line}.dispatchEvent(new PointerEvent('pointerover', {{bubbles: true}})); null")
        assert shown(tab) == [found.front[0].index] and count(tab, ".across.shown") == 1
    assert quiet(tab, address)
    for width, dark in ((420, True), (420, False), (1280, True), (1280, False)):
        opened(tab, found.folder / "report.html", width=width, dark=dark)
        assert tab.value("document.documentElement.scrollWidth") <= width


def test_what_cannot_be_pressed_is_not_printed(tab, run):
    opened(tab, run.folder / "report.html")
    assert count(tab, "button:not(.sort)") > 4 and count(tab, ".filter input") == 4
    tab.call("Emulation.setEmulatedMedia", media="print")
    assert count(tab, "button:not(.sort)") == count(tab, ".filter input") == 0
    assert count(tab, ".card") == 1 and count(tab, ".scatter") == 1
    tab.call("Emulation.setEmulatedMedia", media="")


def test_a_run_in_which_all_failed_has_no_networks_to_show(tab, tmp_path):
    found = written(write_run(tmp_path / "run", SEARCHES["two"], count=4, failed=range(4)))
    address = opened(tab, found.folder / "report.html")
    tab.point("h1", press=True)
    tab.key("Escape")
    assert shown(tab) == [] and count(tab, ".about") == 0
    assert quiet(tab, address)


def test_the_comparison_page(tab, table, tmp_path):
    for tactic in ("random", "full"):
        for seed in range(2):
            folder = tmp_path / f"{tactic}-{seed}"
            nasjax.search(table, objectives=["max:acc", "min:cost"], tactic=tactic, evaluations=20, seed=seed, run=folder)
    page, rows, _ = write_comparison([tmp_path], tmp_path)
    for width, dark in ((1280, False), (1280, True), (390, False), (390, True)):
        address = opened(tab, page, width=width, dark=dark)
        assert count(tab, "#curves path.line") == count(tab, "path.band") == count(tab, "#fronts g path.line") == 2
        assert count(tab, "#fronts path.faint") == 4
        assert count(tab, "table.prices td .key") == 2
        assert text(tab, "table.prices tr:last-child").split("\t")[0].strip() == rows[-1][0]
        assert tab.value("document.documentElement.scrollWidth") <= width
        assert quiet(tab, address)
    with (tmp_path / "comparison.csv").open() as file:
        assert [line["settings"] for line in csv.DictReader(file)] == [row[0] for row in rows[1:]]
