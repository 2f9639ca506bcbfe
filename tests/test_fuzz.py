"""Damaged files of every kind, for every reader: each is read, or refused in one line that names it; nothing hangs."""

import csv
import gzip
import json
import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from random import Random
from shutil import copytree, rmtree
from tempfile import mkdtemp
from typing import Any, ClassVar

import jax
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from tables import GENES, write_table
from torch_format import torch_bytes

import nasjax
from nasjax import supernets
from nasjax.algorithms import ALGORITHMS
from nasjax.cli import main
from nasjax.cli.extract import _recorded_task
from nasjax.cli.failures import report_failure
from nasjax.cli.multirun import finished
from nasjax.cli.options import COMMANDS
from nasjax.deploy.from_run import select_networks
from nasjax.errors import ConfigError
from nasjax.evaluation import EVALUATORS, STRATEGIES, TimedConfig
from nasjax.hardware.measurement import Latency
from nasjax.hardware.recorded import read_latencies
from nasjax.hardware.targets import HARDWARE
from nasjax.hardware.timer import Timer
from nasjax.host import new_place
from nasjax.objectives import parse_goals
from nasjax.predictors import PREDICTORS
from nasjax.report.groups import group_runs
from nasjax.report.traces import read_traces
from nasjax.runs.archive import Archive, check_archive
from nasjax.runs.csv_io import read_architectures
from nasjax.runs.folder import read_identity, read_settings, run_folder
from nasjax.searches import dynast
from nasjax.searches.dynast import import_results
from nasjax.searches.problem import search_problem
from nasjax.searches.seeds import SeedSearches
from nasjax.searches.seeds_folder import write_seeds
from nasjax.searches.tactic_state import dump_state, load_state
from nasjax.searches.warm_start import read_warm_start
from nasjax.supernets.checkpoints import read_tensors
from nasjax.supernets.external import ExternalConfig
from nasjax.supernets.extract import extract
from nasjax.supernets.folders import load, save_network
from nasjax.supernets.hat import lists as hat
from nasjax.supernets.tabular import TabularConfig, TabularNet
from nasjax.tactics import REDUCTIONS, TACTICS
from nasjax.tasks import TASKS
from nasjax.tasks.arrays import ArraysConfig
from nasjax.tasks.image_folder import ImageFolderConfig
from nasjax.tasks.translation import TranslationConfig
from nasjax.training import TRAINERS

EXAMPLES = int(os.environ.get("NASJAX_FUZZ", "8"))
"""Examples of each reader's file and each kind of damage; thousands find what a few hundred do not."""

GOALS = ["max:acc", "min:cost"]

FOREIGN = [
    None, True, -1, 0, 1.5, 10**20, 2**31, 2**63, float("nan"), float("inf"), 1e308, "", "x" * 5000, "\x1b[31m\n", "\0",
    "nan", "../..", [], [[]], [None], {}, {"name": 3}, {"name": "digits"}, [1, 2], "2026-99-99", "é", "1_0", "0x10",
]  # fmt: skip
"""Values of other types and sizes than files have."""

LIKE = {"archs": np.zeros((3, 2), np.int32), "key": jax.random.key(0)}
"""A tactic's state."""

FILES = Path(mkdtemp(prefix="nasjax-fuzz-")) / "run"
"""A folder of valid files."""

TEXTS = [
    b"", b"\n", b"[" * 100_000, b'{"a":' * 100_000, b"- " * 5_000, b"a: &a [*a]",
    b"a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n",
    b"\0" * 100, b"null", b"[]", b"{}", b"3", b'"x"', b"\xff\xfe", b"\x80\x04", b"PK\x03\x04", b"a,b\n1,2\n",
    b"!!python/none x", b"? {}\n: 1", b"{? [1]: 2}", b"2026-99-99", b"9" * 5_000, b"SQLite format 3\0",
    b"version https://git-lfs.github.com/spec/v1",
]  # fmt: skip
"""Contents of other files."""


# -- kinds of damage --------------------------------------------------------------------------------------------------------


def places(tree: Any, path=()):
    """Every place in nested lists and dicts."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def change_value(tree: Any, random: Random) -> Any:
    """The data with one value replaced by a foreign one, left out, or under another name."""
    path = random.choice(list(places(tree)) or [()])
    if not path:
        return random.choice(FOREIGN)
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    what = random.randrange(4)
    if what == 0:
        del parent[path[-1]]
    elif what == 1 and isinstance(parent, dict):
        parent[str(random.choice(FOREIGN))] = parent.pop(path[-1])
    else:
        parent[path[-1]] = random.choice(FOREIGN)
    return tree


def cut(file: Path, random: Random) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: random.randrange(len(content) + 1)])


def flip(file: Path, random: Random) -> None:
    content = bytearray(file.read_bytes())
    for _ in range(random.choice([1, 3, 30])):
        content[random.randrange(len(content))] = random.choice([0, 10, 34, 44, 58, 91, 255, random.randrange(256)])
    file.write_bytes(content)


def overwrite(file: Path, random: Random) -> None:
    content = bytearray(file.read_bytes())
    size = random.choice([16, 512, 4096])
    start = random.randrange(0, len(content), min(size, len(content)))
    content[start : start + size] = random.choice([bytes(size), random.randbytes(size)])
    file.write_bytes(content)


def replace(file: Path, random: Random) -> None:
    file.write_bytes(random.choice(TEXTS))


def other_text(file: Path, random: Random) -> None:
    text = file.read_bytes().decode("latin-1")
    file.write_bytes(random.choice([lambda: text.encode("utf-16"), lambda: b"\xef\xbb\xbf" + text.encode(),
                                    lambda: text.replace("\n", "\r").encode(), lambda: text.replace(",", ";").encode(),
                                    lambda: (text + text).encode()])())  # fmt: skip


def another_kind(file: Path, random: Random) -> None:
    file.unlink()
    random.choice([lambda: None, file.mkdir, lambda: os.mkfifo(file), lambda: file.symlink_to(file),
                   lambda: file.symlink_to("/dev/zero"), lambda: file.symlink_to("/dev/null")])()  # fmt: skip


def change_json(file: Path, random: Random) -> None:
    lines = (
        [change_value(json.loads(line), random) for line in file.read_text().splitlines()] if file.suffix == ".jsonl" else []
    )
    file.write_text("\n".join(map(json.dumps, lines)) or json.dumps(change_value(json.loads(file.read_text()), random)))


def change_yaml(file: Path, random: Random) -> None:
    file.write_text(yaml.safe_dump(change_value(yaml.safe_load(file.read_text()), random)))


def change_cells(file: Path, random: Random) -> None:
    rows = [line.split(",") for line in file.read_text().splitlines()]
    for _ in range(random.choice([1, 3])):
        row = random.randrange(len(rows))
        column = random.randrange(len(rows[row]))
        what = random.randrange(5)
        if what == 0:
            rows.append(list(rows[row]))
        elif what == 1:
            rows[row].append("1")
        elif what == 2:
            rows[0][column % len(rows[0])] = rows[0][0]
        else:
            rows[row][column] = str(random.choice(FOREIGN)).replace("\0", "")
    file.write_text("\n".join(map(",".join, rows)))


def change_tables(file: Path, random: Random) -> None:
    """Drops a table or a column, or puts a foreign value into all rows of a column."""
    with closing(sqlite3.connect(file)) as base, base:
        table = random.choice([name for (name,) in base.execute("select name from sqlite_master where type = 'table'")])
        column = random.choice([row[1] for row in base.execute(f"pragma table_info({table})")])
        what = random.randrange(8)
        if what == 0:
            base.execute(f"drop table {table}")
        elif what == 1:
            base.execute(f"alter table {table} rename column {column} to other")
        elif what == 2:
            base.execute(f"delete from {table}")
        elif what == 3:
            base.execute(f"pragma user_version = {random.choice([0, 1, 2, 3, 9])}")
        else:
            value = random.choice([*FOREIGN, *TEXTS, *map(json.dumps, FOREIGN)])
            value = (
                str(value) if isinstance(value, list | dict) or (isinstance(value, int) and abs(value) >= 2**63) else value
            )
            try:
                base.execute(f"update {table} set {column} = ?", (value,))
            except sqlite3.IntegrityError:
                base.execute(f"update {table} set {column} = ? where rowid = 1", (value,))


DAMAGES = {"": (cut, flip, overwrite, replace, other_text, another_kind), ".json": (change_json,), ".jsonl": (change_json,),
           ".yaml": (change_yaml,), ".csv": (change_cells,), ".db": (change_tables,)}  # fmt: skip
"""Kinds of damage to any file, and to those of a suffix."""


# -- readers ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reader:
    """`call(folder)` reads the `files` of a folder with all that readers read."""

    files: tuple[str, ...]
    call: Callable[[Path], Any]


@cache
def table() -> TabularNet:
    return TabularNet(FILES / "table.csv", GENES)


@cache
def digits() -> supernets.SuperNet:
    return supernets.abstract("digits")


@cache
def transformer() -> supernets.SuperNet:
    return supernets.abstract("transformer_lt_wmt_en_de", source_words=9, target_words=9)


def read_archive(folder: Path) -> None:
    check_archive(folder / "archive.db")
    with closing(Archive(folder / "archive.db", read_identity(FILES)["id"])) as archive:
        archive.evaluations(), archive.fits(), archive.reduction(), archive.find("context", np.zeros((1, 2), np.int32))
        if (state := archive.state()) is not None:
            with archive.naming_damage():
                load_state(LIKE, state[2])


def resume(folder: Path) -> None:
    with run_folder(folder, read_settings(FILES), read_identity(FILES)["context"]):
        pass


def warm_start(name: str) -> Callable[[Path], Any]:
    def call(folder: Path) -> None:
        problem = search_problem(table(), None)
        read_warm_start(folder / name, problem, parse_goals(GOALS, [], problem.measurable), table())

    return call


def stored_times(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TimedConfig, "_key", lambda *_: "k")
        patch.setattr(TimedConfig, "seconds", lambda *_: dict.fromkeys(STRATEGIES, 1.0))
        TimedConfig(file=str(folder / "times.jsonl")).stored_seconds(None, None)


def published_lists(file: Path, net: supernets.SuperNet) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynast, "cost_tables", lambda net: {})  # They take seconds, and concern no file.
        import_results([file], net)


class NoDevice:
    context: ClassVar[dict[str, str]] = {}


def valid_files(folder: Path) -> None:
    """A file of every kind that is read, none damaged; the archive has a state, a reduction and errors of predictors."""
    table = Path(write_table(folder.parent / "table.csv"))
    nasjax.search(TabularNet(table, GENES), objectives=GOALS, tactic="random", evaluations=12, run=folder)
    table.rename(folder / "table.csv")
    with closing(Archive(folder / "archive.db", json.loads((folder / "run.json").read_text())["id"])) as archive:
        archive.save_fits(0, [("acc", 12, 1.0, 2.0, 0.5, "gaussian_process")])
        archive.save_reduction([[0, 1], [0]])
        archive.save_state(1, 12, dump_state(LIKE))
    latency = asdict(Latency(1.0, 0.1, 3, True, 1, 1, "cpu", {"jax": "0"}, 100, 5.0))
    digest = Timer(NoDevice(), None, {})._context_digest()
    lines = [{"context": digest, "name": "a", **latency}, {"context": digest, "pace": 2.0}]
    (folder / "latencies.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "times.jsonl").write_text(json.dumps({"key": "k", "seconds": dict.fromkeys(STRATEGIES, 1.0)}) + "\n")
    lists = {"wid": None, "ks": [3] * 6, "e": [2] * 6, "d": [1] * 3, "r": [8]}
    rows = [["Sub-network", "MACs", "Top-1 Acc (%)"], [lists, 100, 70.5], [{**lists, "d": [1, 1, 2]}, 110, 71]]
    with (folder / "ofa.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    rows = [["Sub-network", "MACs", "BLEU Score"], [{"encoder": [512], "num_layers": [2], "heads": [4, 8]}, 100, 20.5]]
    with (folder / "dynast.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    net = supernets.create("digits")
    arch = tuple(map(int, net.space.smallest()))
    save_network(extract(net, arch), net.origin, arch, folder)
    choices = net.space.decode(np.array(arch))
    rows = [net.space.names, [choices.get(name, "") for name in net.space.names]]
    (folder / "digits.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    supernets.save_weights(net, folder / "supernet.safetensors", {})
    (folder / "record.json").write_text(json.dumps({"settings": {"task": {"name": "digits"}, "seed": 0}}))
    (folder / "weights.pth").write_bytes(torch_bytes({"state_dict": {"a.weight": np.ones((2, 3), np.float32)}, "epoch": 3}))
    (folder / "images" / "class").mkdir(parents=True)
    for number in range(8):
        Image.fromarray(np.full((9, 9, 3), 30 * number, np.uint8)).save(folder / "images" / "class" / f"{number}.png")
    (folder / "pairs").mkdir()
    (folder / "pairs" / "train.en").write_text("the dog sees\n" * 9)
    (folder / "pairs" / "train.de.gz").write_bytes(gzip.compress(b"der Hund sieht\n" * 9, mtime=0))
    for language, words in (("en", "the dog sees"), ("de", "der Hund sieht")):
        text = "".join(f"{word} 9\n" for word in words.split())
        (folder / "pairs" / f"dict.{language}.txt").write_text(text)
    (folder / "pairs" / "codes").write_text("#version: 0.2\nt h\nth e</w>\n")
    by_layer = {name: [4 if "heads" in name else 1024] * 6 for name in hat.BY_LAYER}
    lists = {"encoder_embed_dim": [512], "decoder_embed_dim": [512], "decoder_layer_num": [2], **by_layer}
    lists["decoder_arbitrary_ende_attn"] = [-1] * 6
    with (folder / "hat.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["Sub-network", "BLEU Score"], [lists, 25]])
    chosen = {
        "objectives": GOALS,
        "constraints": [],
        "references": None,
        "evaluations": 6,
        "warm_start": None,
        "proxies": (),
    }
    chosen |= {"tactic": "random", "algorithm": "nsga2", "predictor": "ridge"}
    list(write_seeds(SeedSearches.of(TabularNet(folder / "table.csv", GENES), **chosen), folder / "seeds", 0, 2))
    np.savez(folder / "images.npz", x=np.zeros((12, 4, 4), np.uint8), y=np.arange(12) % 3)


RUN = ("config.yaml", "summary.json", "evaluations.csv", "pareto.csv")

READERS = {
    "report": Reader((*RUN, "predictors.csv"), lambda f: group_runs(read_traces([f, f]))),
    "seeds": Reader(
        ("seeds/seeds.csv", "seeds/seeds.json", "seeds/config.yaml"), lambda f: group_runs(read_traces([f / "seeds"]))
    ),
    "settings": Reader(("config.yaml",), read_settings),
    "identity": Reader(("run.json",), read_identity),
    "resume": Reader(("config.yaml", "run.json"), resume),
    "extract": Reader((*RUN, "run.json", "archive.db"), select_networks),
    "sweep": Reader(("summary.json",), lambda f: finished(f / "summary.json", {"supernet": None, "task": None})),
    "archive": Reader(("archive.db",), read_archive),
    "warm start from a run": Reader(("evaluations.csv", "pareto.csv"), warm_start("")),
    "warm start from an archive": Reader(("archive.db",), warm_start("archive.db")),
    "warm start from a table": Reader(("evaluations.csv",), warm_start("evaluations.csv")),
    "table": Reader(("table.csv",), lambda f: TabularNet(f / "table.csv", GENES).ranges()),
    "architectures": Reader(("pareto.csv",), lambda f: read_architectures("archs", f / "pareto.csv", table().space)),
    "latencies": Reader(("table.csv",), lambda f: read_latencies("hardware.file", f / "table.csv", "cost", table().space)),
    "measured latencies": Reader(("latencies.jsonl",), lambda f: Timer(NoDevice(), f / "latencies.jsonl", {})),
    "times of strategies": Reader(("times.jsonl",), stored_times),
    "results of DyNAS-T": Reader(("dynast.csv",), lambda f: import_results([f / "dynast.csv"])),
    "Once-for-All's lists": Reader(("ofa.csv",), lambda f: published_lists(f / "ofa.csv", digits())),
    "HAT's lists": Reader(("hat.csv",), lambda f: published_lists(f / "hat.csv", transformer())),
    "pairs of texts": Reader(
        ("pairs/train.en", "pairs/train.de.gz", "pairs/dict.en.txt", "pairs/codes"),
        lambda f: TranslationConfig(str(f / "pairs"), held_out=2, vocabulary=str(f / "pairs"), beam=0).create(),
    ),
    "extracted network": Reader(("config.json",), load),
    "training record": Reader(("record.json",), lambda f: _recorded_task(f / "record.json")),
    "weights": Reader(("network.safetensors",), lambda f: read_tensors(f / "network.safetensors")),
    "PyTorch's weights": Reader(("weights.pth",), lambda f: {**read_tensors(f / "weights.pth")}),
    "image folder": Reader(("images/class/0.png",), lambda f: ImageFolderConfig(str(f / "images"), image_size=8).create()),
    "images": Reader(("images.npz",), lambda f: ArraysConfig(str(f / "images.npz")).create()),
}
"""Every reader of files that a person may name, and the files that are damaged for it."""


@pytest.fixture(scope="module", autouse=True)
def files():
    valid_files(FILES)
    yield FILES
    rmtree(FILES.parent)


def ended(*_):
    raise AssertionError("it takes longer than a minute")


@pytest.mark.parametrize("name", READERS)
def test_valid_files_are_read(name, tmp_path):
    copytree(FILES, tmp_path / "run")
    READERS[name].call(tmp_path / "run")


@pytest.mark.parametrize("name", READERS)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)
@given(st.data())
def test_damaged_files_are_read_or_refused_in_one_line_that_names_them(name, tmp_path_factory, data):
    reader = READERS[name]
    file = data.draw(st.sampled_from(reader.files))
    damage = data.draw(st.sampled_from((*DAMAGES[""], *DAMAGES.get(Path(file).suffix, ()) * 4)))
    folder = tmp_path_factory.mktemp("fuzz") / "run"
    copytree(FILES, folder)
    try:
        damage(folder / file, Random(data.draw(st.integers(0, 2**32))))
        before = sorted(folder.iterdir())
        signal.signal(signal.SIGALRM, ended)
        signal.alarm(60)
        try:
            reader.call(folder)
        except Exception as error:
            code, line = report_failure(error)
            assert code == 2, line
            assert line.count("\n") < 3 and (file in line or str(folder) in line), line
            assert sorted(folder.iterdir()) == before
        finally:
            signal.alarm(0)
    finally:
        rmtree(folder.parent)


# -- settings on the command line -------------------------------------------------------------------------------------------

VALUES = [
    "", "???", "null", "[]", "[[]]", "{}", "{a:1}", "[1,2]", "1,2", "nan", "inf", "-1", "0", "1e999", "9" * 20,
    "-" + "9" * 20, "9" * 5000, "true", "x", "'", '"', "[", "]", "(", "$", "${", "${seed}", "${nothing}",
    "${oc.env:HOME}", "\x1b[31m", "\0", "a b", "é", "x" * 5000, "/".join("ab" * 500), "../..", "/dev/null",
    "range(3)", "glob(*)", "choice()", "[null]", "['']", "1.5", "0.0", "1e-400", "-0", "0x10", "1_000", "~", "!",
    "a=b", "random", "digits", "max:acc", "acc<=nan", "acc<=", "1e308",
]  # fmt: skip
"""Values of overrides; few of them fit any setting."""

FORMS = ("{key}={value}",) * 12 + (
    "+{key}={value}",
    "++{key}={value}",
    "~{key}",
    "{key}",
    "{key}.x={value}",
    "~{key}={value}",
)
"""How a word may set, add or delete a setting."""

GROUPED = {"": None, "tactic": TACTICS, "algorithm": ALGORITHMS, "predictor": PREDICTORS, "space_reduction": REDUCTIONS,
           "supernet": {"tabular": TabularConfig}, "evaluator": EVALUATORS, "hardware": HARDWARE}  # fmt: skip
"""The tables of names whose settings are given bad values; `""`: the settings that are in no group."""


KNOWN = [
    "experiment=range(3)",
    f"seed={'9' * 5000}",
    "seed=???",
    "hardware=[1,2]",
    "~evaluations",
    "minutes=nan",
    "run=" + "a/" * 2000,
]
"""Words that once ended in a traceback, or left a folder."""


def words_of(data: Any) -> list[str]:
    """A word for a setting, after the one that chooses its group's name."""
    group = data.draw(st.sampled_from(sorted(GROUPED)))
    value, form = data.draw(st.sampled_from(VALUES)), data.draw(st.sampled_from(FORMS))
    if not group:
        keys = (
            *COMMANDS["search"].settings,
            "references.acc",
            "supernet",
            "hydra",
            "hydra/launcher",
            "hydra.run.dir",
            "speed",
        )
        return [form.format(key=data.draw(st.sampled_from(keys)), value=value)]
    name = data.draw(st.sampled_from(sorted(GROUPED[group])))
    entry = GROUPED[group][name]
    field = data.draw(st.sampled_from(["name", *(part.name for part in fields(entry))]))
    return [f"{group}={name}", form.format(key=f"{group}.{field}", value=value)]


def is_refused(words: list[str], folder: Path, capsys: Any) -> bool:
    """Runs the command with these words in a folder; whether it was refused, in three lines at most and without a trace."""
    before = sorted(folder.iterdir())
    signal.signal(signal.SIGALRM, ended)
    signal.alarm(60)
    try:
        code = main(words)
    except SystemExit as end:  # argparse refused the words.
        code = end.code
    finally:
        signal.alarm(0)
    lines = capsys.readouterr().err.splitlines()
    said = "\n".join(lines)
    assert code in (0, 2), (words, said)
    if code == 2:
        assert "Traceback" not in said and sum(map(len, lines)) < 4000 and lines[-1].isprintable(), said
        assert len(lines) <= 3, said
        assert sorted(folder.iterdir()) == before
    return code == 2


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck),
          phases=[Phase.generate])  # fmt: skip
@given(st.data())
def test_settings_of_a_search_are_used_or_refused_in_three_lines_without_a_folder(tmp_path_factory, capsys, data):
    run_search(words_of(data), tmp_path_factory.mktemp("words"), capsys)


@pytest.mark.parametrize("word", KNOWN, ids=lambda word: word[:20])
def test_words_that_once_failed_are_refused(word, tmp_path, capsys):
    (tmp_path / "here").mkdir()
    assert run_search([word], tmp_path / "here", capsys)


def run_search(words: list[str], folder: Path, capsys: Any) -> bool:
    """A search of a table with these words, without its steps; whether they were refused."""
    table = ["supernet=tabular", f"supernet.table={FILES / 'table.csv'}", f"supernet.genes=[{','.join(GENES)}]"]
    fixed = ["search", *table, "objectives=[max:acc,min:cost]", "tactic=random", "evaluations=3", "minutes=0"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("nasjax.searches.loop._finish", lambda *_, **__: None)
        patch.setattr("nasjax.cli.search._print_results", lambda *_, **__: True)
        refused = is_refused([*fixed, *words], folder, capsys)
    rmtree(folder)
    return refused


class Reached(ConfigError):
    """Raised in place of what takes long: the settings are accepted up to there."""


def reached(*_, **__):
    raise Reached("reached")


def training_reached(path, *_):
    new_place("run=", path, "folder")
    reached()


COMMAND_WORDS = {
    "train": ["supernet=digits", "task=digits", "run=trained"],
    "train a network": ["subnet={run}", "task=digits", "run=trained"],
    "extract": ["supernet=digits", "task=digits", "archs={run}/digits.csv", "out=networks"],
    "extract a network": ["subnet={run}", "export=safetensors", "out=networks"],
    "evaluate": ["supernet=tabular", "supernet.table={run}/table.csv", f"supernet.genes=[{','.join(GENES)}]",
                 "archs={run}/pareto.csv", "out=values.csv"],
    "latency": ["supernet=digits", "hardware=cpu", "out=latencies.csv"],
    "import": ["{run}/supernet.safetensors", "supernet=digits", "out=weights.safetensors"],
    "import-results": ["{run}/dynast.csv", "out=table.csv"],
    "report": ["{run}", "{run}", "--out=compared"],
}  # fmt: skip
"""Valid words of every command but `search`, whose first word is the command's name."""

NETWORKS = {"digits": supernets.SUPERNETS["digits"], "tabular": TabularConfig, "external": ExternalConfig}

COMMAND_GROUPS = {"supernet": NETWORKS,
                  "task": TASKS, "evaluator": EVALUATORS, "hardware": HARDWARE, "trainer": TRAINERS}  # fmt: skip
"""The tables of names whose settings these commands read."""


def word_of_command(data: Any, command: str) -> list[str]:
    """A word for an option or a setting of a command, or one more path."""
    keys, value = COMMANDS[command].keys, data.draw(st.sampled_from(VALUES))
    if not keys or data.draw(st.integers(0, 9)) == 0:
        return [value]
    key, form = data.draw(st.sampled_from(keys)), data.draw(st.sampled_from(FORMS))
    if key not in COMMAND_GROUPS or data.draw(st.integers(0, 4)) == 0:
        return [form.format(key=key, value=value)]
    name = data.draw(st.sampled_from(sorted(COMMAND_GROUPS[key])))
    entry = COMMAND_GROUPS[key][name]
    return [
        f"{key}={name}",
        form.format(key=f"{key}.{data.draw(st.sampled_from([part.name for part in fields(entry)]))}", value=value),
    ]


def run_command(name: str, words: list[str], folder: Path, capsys: Any) -> bool:
    """Runs a command with its valid words and these, up to what takes long; whether they were refused."""
    fixed = [word.format(run=FILES) for word in COMMAND_WORDS[name]]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("nasjax.training.run.training_folder", training_reached)
        for place in ("deploy.from_run.validation_metrics", "cli.extract.extract_and_write", "hardware.profiling.Timer"):
            patch.setattr(f"nasjax.{place}", reached)
        return is_refused([name.split()[0], *fixed, *words], folder, capsys)


@pytest.mark.parametrize("name", COMMAND_WORDS)
def test_valid_words_of_other_commands_are_accepted(name, tmp_path, capsys, monkeypatch):
    said = []
    monkeypatch.setattr(Reached, "__str__", lambda error: said.append("reached") or "reached")
    assert not run_command(name, [], tmp_path, capsys) or said


@pytest.mark.parametrize("name", COMMAND_WORDS)
@settings(max_examples=EXAMPLES // 2, deadline=None, derandomize=True, database=None,
          suppress_health_check=list(HealthCheck), phases=[Phase.generate])  # fmt: skip
@given(st.data())
def test_words_of_other_commands_are_used_or_refused_in_three_lines_without_a_file(name, tmp_path_factory, capsys, data):
    folder = tmp_path_factory.mktemp("words")
    run_command(name, word_of_command(data, name.split()[0]), folder, capsys)
    rmtree(folder)
