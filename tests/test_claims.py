"""Several runs that share an archive: no network is measured twice, and claims of ended processes are void."""

import csv
import sqlite3
from collections import Counter
from contextlib import closing

import numpy as np
import pytest
from measured import lines, start, wait_for

from nasjax import supernets, tasks
from nasjax.evaluation import MaskedConfig
from nasjax.runs.archive import Archive

ARCHS = np.arange(12, dtype=np.int32).reshape(6, 2)


@pytest.fixture
def pair(tmp_path):
    """Two runs that share an archive."""
    archives = [Archive(tmp_path / "shared.db", name) for name in ("a", "b")]
    yield archives
    for archive in archives:
        archive.close()
    assert [path.name for path in tmp_path.iterdir()] == ["shared.db"]


def test_a_run_leaves_what_another_has_claimed(pair):
    a, b = pair
    assert a.claim("c", ARCHS, 2) == ([0, 1], [2, 3, 4, 5])
    assert b.claim("c", ARCHS, 3) == ([2, 3, 4], [0, 1, 5])
    assert b.claim("another", ARCHS, 9) == ([0, 1, 2, 3, 4, 5], [])
    a.add_measurements("c", ARCHS[:2], {"acc": np.ones(2)}, 0.0)
    assert b.claim("c", ARCHS, 9)[1] == []
    assert a.find("c", ARCHS)[:3] == [{"acc": 1.0}, {"acc": 1.0}, None]


def test_claims_of_a_closed_run_are_void(pair):
    a, b = pair
    a.claim("c", ARCHS, 4)
    assert b.claim("c", ARCHS[:4], 9) == ([], [0, 1, 2, 3])
    a.close()
    assert b.claim("c", ARCHS, 9) == ([0, 1, 2, 3, 4, 5], [])


def test_a_run_may_claim_again_what_it_has_claimed(pair):
    assert pair[0].claim("c", ARCHS, 4)[0] == [0, 1, 2, 3]
    assert pair[0].claim("c", ARCHS, 4)[0] == [0, 1, 2, 3]


def test_an_archive_of_the_first_format_is_brought_up_to_date(tmp_path):
    old = Archive(tmp_path / "old.db", "a")
    old.add_measurements("c", ARCHS[:2], {"acc": np.ones(2)}, 0.0)
    old._db.execute("drop table claims")
    old._db.execute("alter table measurements drop column failure")
    old._db.execute("pragma user_version = 1")
    old.close()
    new = Archive(tmp_path / "old.db", "b")
    assert new.claim("c", ARCHS, 9)[0] == [2, 3, 4, 5]
    new.close()


FORM_4 = """
create table contexts (digest text primary key, description text not null);
create table measurements (
    key text primary key, context text not null, arch text not null, metrics text not null, seconds real not null);
create table evaluations (
    run text not null, position integer not null, step integer not null, key text not null, source text not null,
    primary key (run, position));
create table states (
    run text primary key, step integer not null, told integer not null, state blob not null);
create table fits (
    run text not null, step integer not null, objective text not null, rows integer not null,
    mape real, rmse real, tau real, chosen text not null default '', primary key (run, step, objective));
create table reductions (run text primary key, options text not null);
create table claims (key text primary key, holder text not null);
insert into measurements values ('c:0,0', 'c', '[0, 0]', '{"acc": NaN}', 0.5);
insert into evaluations values ('a', 0, 0, 'c:0,0', 'measured');
pragma user_version = 4;
"""


def test_an_archive_without_reasons_of_failures_still_opens(tmp_path):
    with closing(sqlite3.connect(tmp_path / "old.db")) as base:
        base.executescript(FORM_4)
    for _ in range(2):
        with closing(Archive(tmp_path / "old.db", "a")) as archive:
            (row,) = archive.evaluations()
            assert (row.arch, row.failure) == ((0, 0), "")
    with closing(Archive(tmp_path / "old.db", "a")) as archive:
        found = {"acc": np.array([np.nan]), "failure": np.array(["raised OSError: full"])}
        archive.add_measurements("c", np.array([[0, 1]]), found, 0.0, [1])
        assert [row.failure for row in archive.evaluations()] == ["", "raised OSError: full"]


def networks(log):
    """The number of measurements of each network."""
    return Counter(line.split(maxsplit=1)[1] for line in lines(log))


def table(folder):
    """The rows of evaluations.csv without source and seconds, which may differ."""
    with (folder / "evaluations.csv").open() as file:
        return [row | {"source": "", "seconds": ""} for row in csv.DictReader(file)]


def sources(folder):
    with (folder / "evaluations.csv").open() as file:
        return Counter(row["source"] for row in csv.DictReader(file))


@pytest.mark.slow
def test_two_runs_at_once_measure_every_network_once(tmp_path):
    words = ["archive=shared.db", "evaluations=18"]
    runs = [start(tmp_path, *words, f"run={name}", TOGETHER="2") for name in ("a", "b")]
    assert [(run.communicate()[1], run.returncode)[1] for run in runs] == [0, 0]
    assert set(networks(tmp_path / "measured.log").values()) == {1}
    assert len(networks(tmp_path / "measured.log")) == 18
    assert table(tmp_path / "a") == table(tmp_path / "b")
    assert len(table(tmp_path / "a")) == 18
    assert (tmp_path / "a" / "pareto.csv").read_bytes() == (tmp_path / "b" / "pareto.csv").read_bytes()
    found = [sources(tmp_path / name) for name in ("a", "b")]
    assert sum(count["measured"] for count in found) == 18
    assert min(count["measured"] for count in found) > 0
    assert not (tmp_path / "shared.db.claims").exists()


@pytest.mark.slow
def test_a_run_goes_on_where_another_was_killed_while_measuring(tmp_path):
    log, gate = tmp_path / "measured.log", tmp_path / "gate"
    gate.touch()
    words = ["archive=shared.db", "evaluations=18"]
    killed = start(tmp_path, *words, "run=killed", GATE=str(gate))
    wait_for(lambda: len(lines(log)) == 1)
    other = start(tmp_path, *words, "run=other")
    assert other.stderr is not None
    said = next(line for line in other.stderr if "waiting" in line)
    assert said == "waiting for 1 network that other runs on this archive are measuring\n"
    assert len(lines(log)) == 6
    killed.kill()
    killed.wait()
    other.communicate()
    assert other.returncode == 0
    assert len(table(tmp_path / "other")) == 18
    begun = lines(log)[0].split(maxsplit=1)[1]
    assert networks(log) == Counter({name: 1 + (name == begun) for name in networks(log)})
    resumed = start(tmp_path, *words, "run=killed")
    resumed.communicate()
    assert resumed.returncode == 0
    assert len(lines(log)) == 19
    assert table(tmp_path / "killed") == table(tmp_path / "other")
    gate.unlink()


@pytest.mark.slow
def test_a_network_scores_the_same_to_the_bit_whatever_it_is_measured_with():
    net, task = supernets.create("digits"), tasks.create("digits")
    evaluator = MaskedConfig(chunk=4).bind(net, task)
    chunk = evaluator.chunk
    assert chunk > 1
    rng = np.random.default_rng(0)
    drawn = net.space.canonical(rng.integers(0, net.space.counts, (14, len(net.space.genes))).astype(np.int32))
    alone = {name: np.concatenate([evaluator(arch[None])[name] for arch in drawn[:4]]) for name in ("accuracy_top1", "loss")}
    for _ in range(3):
        order = rng.permutation(len(drawn))
        for first in range(0, len(drawn), chunk):
            rows = order[first : first + chunk]
            found = evaluator(drawn[rows])
            for place, row in enumerate(rows):
                if row < 4:
                    assert all(found[name][place] == alone[name][row] for name in alone)
