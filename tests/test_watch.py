"""`nasjax report --watch`: pages of runs that go on, that are over, that are damaged or removed; only of those, and here."""

import fcntl
import http.client
import json
import re
import shutil
import threading
from contextlib import closing, contextmanager
from http.server import ThreadingHTTPServer
from urllib.parse import quote

import browser
import pytest
from tables import GENES, write_table

import nasjax
from nasjax import supernets
from nasjax.cli import main
from nasjax.report import live
from nasjax.report.live_pages import comparable
from nasjax.report.overview import entries
from nasjax.runs import folder as run_folders
from nasjax.runs.folder import SEEDS_JSON, in_use, locked
from nasjax.runs.reader import UNFINISHED, read_latest, read_run
from nasjax.searches.loop import searching

GOALS = ["max:acc", "min:cost"]


@pytest.fixture
def net(tmp_path):
    return supernets.create("tabular", table=write_table(tmp_path / "table.csv"), genes=GENES)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The folder that is watched; results so far are written after every chunk."""
    monkeypatch.setattr("nasjax.searches.loop.LEAST_PAUSE", 0.0)
    monkeypatch.setattr("nasjax.searches.loop.MOST_TIME", float("inf"))
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


@contextmanager
def watching(root):
    """A server of the folder; yields its port."""
    with live.live_server(root, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def ask(port, path, method="GET", host="localhost"):
    """Status, text and version of what is at a path, which is sent as it is."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", f"{host}:{port}")
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.getheader("ETag")


def under_way(net, folder, evaluations=24, **settings):
    """A search of steps of four, as a generator: it goes on when it is asked."""
    tactic = {"name": "random", "population": 4}
    return searching(net, objectives=GOALS, tactic=tactic, evaluations=evaluations, run=folder, **settings)


def finished(net, folder, tactic="random", evaluations=8, **settings):
    return nasjax.search(
        net, **{"objectives": GOALS, "tactic": tactic, "evaluations": evaluations, "run": folder} | settings
    )


def row(page, name):
    """The cells of a run's row in the list, as text."""
    found = next(line for line in page.split("<tr>") if f">{name}</a>" in line)
    return re.sub("<[^>]+>", "|", found)


def networks(run):
    return [(network.index, dict(network.genes), dict(network.metrics)) for network in run.evaluations]


def test_results_so_far_are_those_of_a_search_that_ended_there(net, root):
    search = under_way(net, root / "a", seed=3)
    for _ in range(2):
        next(search)
    now = read_latest(root / "a")
    assert not now.finished and now.summary["evaluations"] == 8 and not now.summary["complete"]
    with pytest.raises(ValueError, match="has not finished"):
        read_run(root / "a")
    search.close()
    assert (root / "a" / UNFINISHED).is_file()
    finished(net, root / "b", {"name": "random", "population": 4}, seed=3)
    ended = read_latest(root / "b")
    assert ended.finished and not (root / "b" / UNFINISHED).exists()
    assert networks(now) == networks(ended) and now.hypervolume == ended.hypervolume
    assert [network.index for network in now.front] == [network.index for network in ended.front]
    finished(net, root / "a", {"name": "random", "population": 4}, seed=3, evaluations=24)  # It is resumed.
    assert not (root / "a" / UNFINISHED).exists()
    assert networks(read_run(root / "a"))[:8] == networks(now)


def test_runs_are_listed_with_their_state_while_they_go_on(net, root):
    finished(net, root / "sweep" / "tactic=full", "full")
    with watching(root) as port:
        assert ": running" not in ask(port, "/")[1]
        search = under_way(net, root / "new")
        next(search)
        _, page, version = ask(port, "/")
        assert "|running|" in row(page, "new") and "|4 of 24|" in row(page, "new")
        assert "|complete|" in row(page, "sweep/tactic=full") and "|8 of 8|" in row(page, "sweep/tactic=full")
        assert page.index(">new<") < page.index(">sweep/")
        assert ask(port, "/", "HEAD") == (200, "", version) == ask(port, "/", "HEAD")
        status, own, before = ask(port, "/run/new")
        assert status == 200 and "running · 4 of 24 evaluations" in own
        assert own.count('class="point') == 4 and 'data-save="pareto.csv"' not in own
        next(search)
        assert ask(port, "/", "HEAD")[2] != version and ask(port, "/run/new", "HEAD")[2] != before
        assert ask(port, "/run/new")[1].count('class="point') == 8
        for _ in search:
            pass
        page = ask(port, "/")[1]
        assert "|complete|" in row(page, "new") and "|24 of 24|" in row(page, "new")
        assert 'data-save="pareto.csv"' in ask(port, "/run/new")[1]
        search = under_way(net, root / "killed")
        assert [next(search).done for _ in range(3)] == [4, 8, 12]
        search.close()
        assert "|stopped|" in row(ask(port, "/")[1], "killed") and "|12 of 24|" in row(ask(port, "/")[1], "killed")
        assert ask(port, "/run/killed")[1].count('class="point') == 12
        assert ask(port, f"/run/{quote('sweep/tactic=full')}")[0] == 200


def test_three_objectives_and_a_run_without_evaluations_have_pages(net, root):
    search = searching(net, objectives=["max:acc", "min:cost", "min:width"], tactic="random", evaluations=9, run=root / "a")
    with watching(root) as port:
        opened = under_way(net, root / "b", minutes=0)
        with pytest.raises(StopIteration):
            next(opened)
        next(search)
        panels = ask(port, "/run/a")[1].partition('<div class="panels">')[2].partition("</figure>")[0]
        assert panels.count('<svg class="scatter"') == 3
        assert "no evaluations so far" in ask(port, "/run/b")[1]
        for file in ("summary.json", "evaluations.csv", "pareto.csv"):
            (root / "b" / file).unlink()
        assert "|stopped|" in row(ask(port, "/")[1], "b")
        assert ask(port, "/run/b")[0] == 200
    search.close()


def test_searches_that_are_over_are_compared_with_those_that_are_like_them(net, root):
    for tactic in ("random", "full"):
        finished(net, root / tactic, tactic)
    finished(net, root / "other", objectives=["max:acc"])
    search = under_way(net, root / "running")
    next(search)
    with watching(root) as port:
        (address,) = re.findall('href="(/comparison/[^"]+)"', ask(port, "/")[1])
        _, page, version = ask(port, address)
        assert "2 runs compared" in page and 'id="fronts"' in page
        for name in ("random", "full"):
            assert f'href="/run/{name}"' in page
        for _ in search:
            pass
        assert ask(port, address, "HEAD")[2] != version
        assert "3 runs compared" in ask(port, address)[1]
    assert {path.name for path in root.iterdir()} == {"random", "full", "other", "running"}


def test_searches_with_many_seeds_are_one_line_with_a_page_and_are_compared(net, root, tmp_path):
    table = [f"supernet.table={tmp_path / 'table.csv'}", f"supernet.genes=[{','.join(GENES)}]"]
    words = ["search", "supernet=tabular", *table, "objectives=[max:acc,min:cost]", "evaluations=8"]
    for tactic in ("random", "full"):
        assert main([*words, f"tactic={tactic}", "tactic.population=4", "seeds=6", f"run={root / tactic}"]) == 0
    state = json.loads((root / "full" / SEEDS_JSON).read_text())
    with watching(root) as port:
        _, page, version = ask(port, "/")
        assert "|complete|" in row(page, "random") and "|6 of 6|" in row(page, "random") and "2 complete" in page
        status, own, _ = ask(port, "/run/random")
        assert status == 200 and "6 runs compared" in own and "complete · 6 of 6 seeds" in own
        (address,) = re.findall('href="(/comparison/[^"]+)"', page)
        assert "12 runs compared" in ask(port, address)[1]
        (root / "full" / SEEDS_JSON).write_text(json.dumps(state | {"done": 0, "complete": False}))
        assert ask(port, "/", "HEAD")[2] != version
        page = ask(port, "/")[1]
        assert "|stopped|" in row(page, "full") and "|0 of 6|" in row(page, "full") and "/comparison/" not in page
        assert "full has no seeds so far" in ask(port, "/run/full")[1]
        for text in ("{", "[]", json.dumps(state | {"planned": "many"})):
            (root / "full" / SEEDS_JSON).write_text(text)
            status, page, _ = ask(port, "/run/full")
            assert status == 500 and "seeds.json is damaged" in page
            assert "|damaged|" in row(ask(port, "/")[1], "full")


def test_removed_and_torn_runs_are_told_in_a_line_and_the_others_are_served(net, root):
    for name in ("a", "b", "c"):
        finished(net, root / name, seed=ord(name))
    with watching(root) as port:
        assert ask(port, "/run/a")[0] == 200
        shutil.rmtree(root / "a")
        assert ask(port, "/run/a")[0] == ask(port, "/run/a", "HEAD")[0] == 404
        whole = (root / "b" / "summary.json").read_text()
        (root / "b" / "summary.json").write_text(whole[:100])
        status, page, torn = ask(port, "/run/b")
        assert status == 500 and "summary.json is damaged" in page and "follow.js" in page
        assert "|damaged|" in row(ask(port, "/")[1], "b") and "|complete|" in row(ask(port, "/")[1], "c")
        (root / "b" / "summary.json").write_text(whole)
        assert ask(port, "/run/b", "HEAD")[2] != torn and ask(port, "/run/b")[0] == 200
        (root / "c" / "pareto.csv").write_text("index\n1\n")
        status, page, _ = ask(port, "/run/c")
        assert status == 500 and "pareto.csv" in page
        for text in ("{", "[]", '{"summary.json": 1}', "{}", '{"summary.json": "{}"}'):
            (root / "b" / UNFINISHED).write_text(text)
            assert ask(port, "/run/b")[0] == 500
            assert "|damaged|" in row(ask(port, "/")[1], "b")


def test_nothing_but_listed_runs_is_served(net, root):
    finished(net, root / "a")
    secret = root.parent / "secret"
    secret.mkdir()
    for name in ("record.json", "training.html", "summary.json"):
        (secret / name).write_text("{}")
    (root / "link").symlink_to(secret)
    paths = """/run/../secret /run/..
        /../secret/record.json /run/%2e%2e/secret /run/a/../../secret /run//etc/passwd /run/link
        /run/a/config.yaml /run/a/archive.db /run/ /run/a%00 /run/%ff /comparison/.. /comparison/ /follow.js/.."""
    with watching(root) as port:
        for path in paths.split():
            status, page, _ = ask(port, path)
            assert status == 404 and "There is no such page" in page


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1", 200), ("LOCALHOST", 200), ("evil.example", 403), ("", 403)])
def test_pages_are_for_this_machine_s_own_names_only(root, host, status):
    with watching(root) as port:
        assert ask(port, "/", host=host)[0] == status
        assert ask(port, "/", "POST", host=host)[0] in (403, 501)


def test_watching_writes_nothing_and_keeps_no_search_from_its_folder(net, root, monkeypatch):
    search = under_way(net, root / "a")
    next(search)

    def state():
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(root.rglob("*"))}

    before = state()
    with watching(root) as port:
        for path in ("/", "/run/a"):
            ask(port, path)
        assert in_use(root / "a") and state() == before
        search.close()
        assert not in_use(root / "a") and not in_use(root)
        # Somebody looks whether the folder is in use at the very moment that a search takes it.
        with (root / "a" / ".lock").open("rb") as looked:
            fcntl.flock(looked, fcntl.LOCK_SH)
            monkeypatch.setattr(run_folders.time, "sleep", lambda _: fcntl.flock(looked, fcntl.LOCK_UN))
            with locked(root / "a"):
                assert in_use(root / "a")


def test_trainings_are_listed_and_have_the_page_that_they_wrote(root):
    settings = {
        "subnet": None, "supernet": {"name": "tiny"}, "task": {"name": "digits"}, "seed": 4,
        "trainer": {"name": "sandwich", "epochs": 5},
    }  # fmt: skip
    (root / "t").mkdir()
    (root / "t" / "training.json").write_text(json.dumps({"settings": settings, "origin": {}}))
    (root / "t" / "curves.csv").write_text("epoch,step,loss,learning_rate,seconds\n1,10,2.5,0.1,3\n2,20,2.25,0.1,6.5\n")
    with watching(root) as port, locked(root / "t"):
        cells = row(ask(port, "/")[1], "t")
        assert all(f"|{cell}|" in cells for cell in ("running", "tiny on digits", "sandwich, seed 4", "2 of 5"))
        assert "has no page yet" in ask(port, "/run/t")[1]
        (root / "t" / "training.json").unlink()
        (root / "t" / "record.json").write_text(json.dumps({"settings": settings}))
    page = "<html><head></head><body>trained</body></html>"
    (root / "t" / "training.html").write_text(page)
    with watching(root) as port:
        assert "|complete|" in row(ask(port, "/")[1], "t")
        assert "trained" in ask(port, "/run/t")[1]
        (root / "t" / "record.json").write_text("{")
        assert "|damaged|" in row(ask(port, "/")[1], "t") and ask(port, "/run/t")[0] == 500


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere", "--watch"], "there is no folder nowhere"),
        (["runs", "runs", "--watch"], "--watch takes one folder"),
        (["runs", "--watch", "--out", "x"], "--watch writes no files"),
        (["runs", "--port", "0"], "--port goes with --watch only"),
        (["runs", "--watch", "--port", "x"], "port=x is not a port"),
        (["runs", "--watch", "--port", "65536"], "port=65536 is not a port"),
    ],
)
def test_mistakes_are_one_line(root, monkeypatch, capsys, words, said):
    monkeypatch.chdir(root.parent)
    assert main(["report", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_port_that_is_taken_is_one_line_and_ctrl_c_ends_watching(root, monkeypatch, capsys):
    with watching(root) as port:
        assert main(["report", "--watch", str(root), "--port", str(port)]) == 2
        assert capsys.readouterr().err == f"nasjax: --port={port} is in use; name another, or 0 for any that is free\n"

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", interrupted)
    assert main(["report", "--watch", str(root), "--port", "0"]) == 130
    printed = capsys.readouterr()
    assert re.fullmatch(r"Runs in .*: http://127\.0\.0\.1:\d+/ \(Ctrl-C ends it\)\n", printed.out)
    assert printed.err == "nasjax: interrupted\n"


def test_runs_below_runs_hidden_folders_and_links_are_not_listed(net, root):
    finished(net, root / "sweep" / "a")
    for place in ("sweep/a/subnets/1", ".hidden/b", "1/2/3/4/5"):
        (root / place).mkdir(parents=True)
        (root / place / "run.json").write_text("{}")
    assert [entry.name for entry in entries(root)] == ["sweep/a"]
    assert [entry.name for entry in entries(root / "sweep" / "a")] == ["a"]


@pytest.mark.skipif(browser.PROGRAM is None, reason="there is no Chromium here (apt-get install chromium)")
def test_pages_in_a_browser_follow_a_search_without_being_reloaded_by_hand(net, root, tmp_path):
    search = under_way(net, root / "a", evaluations=40)
    for _ in range(3):
        next(search)
    with watching(root) as port, browser.tab(tmp_path / "profile") as tab:
        tab.open(f"http://localhost:{port}/")
        assert "12 of 40" in tab.value("document.body.innerText")
        for width, dark in ((390, False), (390, True), (1280, True), (1280, False)):
            tab.open(f"http://localhost:{port}/", width=width, dark=dark)
            assert tab.value("document.documentElement.scrollWidth") <= width
        next(search)
        tab.until("document.body?.innerText.includes('16 of 40')")
        assert not tab.complaints
        tab.open(f"http://127.0.0.1:{port}/run/a")
        front = read_latest(root / "a").front[-1].index
        tab.point(f"tr[data-index='{front}']", press=True)
        tab.value("window.scrollTo(0, 333)")
        next(search)
        tab.until("document.querySelector('.followed span')?.textContent.includes('20 of 40')")
        tab.until("document.querySelectorAll('.point').length === 20 && window.scrollY === 333")
        on_front = {network.index for network in read_latest(root / "a").front}
        kept = tab.value("[...document.querySelectorAll('.card.kept')].map(card => Number(card.dataset.index))")
        assert kept == [front] if front in on_front else kept == []
        # What a person has set stays: newer results are offered.
        tab.until("document.readyState === 'complete'")
        tab.value("document.querySelector('table.front button.sort').click()")
        next(search)
        tab.until("document.querySelector('.followed button')?.textContent === 'show newer results'")
        assert tab.value("document.querySelectorAll('.point').length") == 20
        tab.value("document.querySelector('.followed button').click()")
        tab.until("document.querySelectorAll('.point').length === 24")
        assert not tab.complaints
    assert set(addresses := tab.addresses) and all(re.match(r"http://127\.0\.0\.1:\d+/", address) for address in addresses)


def test_searches_of_other_tables_are_not_compared(root, tmp_path):
    other = write_table(tmp_path / "other.csv")
    for name, table in (("a", write_table(tmp_path / "t.csv")), ("b", tmp_path / "t.csv"), ("c", other)):
        net = supernets.create("tabular", table=str(table), genes=GENES)
        nasjax.search(net, objectives=GOALS, tactic="random", evaluations=4, run=root / name)
    (compared,) = comparable(entries(root)).values()
    assert [entry.name for entry in compared] == ["a", "b"]
