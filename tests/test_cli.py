"""The command line, as a person uses it: on the digits that come with the package."""

import csv
import json
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from flax import nnx
from tables import GENES, write_table
from test_image_folder import paint
from test_translation import write_pairs

from nasjax import supernets, tasks
from nasjax.cli import main
from nasjax.cli.compose import hydra_overrides, jobs_of_sweep, parse_overrides
from nasjax.cli.multirun import job_name
from nasjax.cli.tables import GROUPS
from nasjax.evaluation import MaskedConfig
from nasjax.registry import settings
from nasjax.supernets.extract import extract

CONF = Path(str(files("nasjax.conf")))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(digits_run):
    return digits_run


def table_words(folder):
    return ["supernet=tabular", f"supernet.table={write_table(folder / 'table.csv')}",
            f"supernet.genes=[{','.join(GENES)}]", "objectives=[max:acc,min:cost]"]  # fmt: skip


def rows(file):
    with file.open() as opened:
        return list(csv.DictReader(opened))


def test_a_search_leaves_its_folder(run, capsys):
    assert {path.name for path in run.iterdir()} >= {
        "config.yaml", "archive.db", "evaluations.csv", "pareto.csv", "summary.json", "report.html", "front.png",
        "hypervolume.png",
    }  # fmt: skip
    table = rows(run / "evaluations.csv")
    assert len(table) == 20
    assert all(50 < float(row["accuracy_top1"]) <= 100 for row in table)
    net = supernets.create("digits")
    for row in rows(run / "pareto.csv"):
        assert 50 < float(row["test_accuracy_top1"]) <= 100
        same = table[int(row["index"])]
        chosen = {name: int(row[name]) for name in net.space.names if row[name]}
        assert all(same[name] == row[name] for name in net.space.names)
        extracted = extract(net, tuple(net.space.encode(chosen).tolist()))
        weights = sum(leaf.size for leaf in jax.tree.leaves(nnx.to_pure_dict(nnx.state(extracted, nnx.Param))))
        assert int(same["params"]) == weights


def test_the_measured_accuracy_is_that_of_the_extracted_network(run, here, capsys):
    first = rows(run / "pareto.csv")[0]
    assert main(["extract", f"run={run}", "out=mine"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"differ by at most \d\.\de-0[5-9]", printed)
    scope: dict = {"inputs": tasks.create("digits").validation.inputs}
    exec("\n".join(printed.splitlines()[-3:]).replace("    ", ""), scope)  # The three lines that it prints.
    accuracy = 100 * np.mean(scope["outputs"].argmax(-1) == tasks.create("digits").validation.targets)
    assert accuracy == pytest.approx(float(first["accuracy_top1"]), abs=100 / 600 + 1e-6)
    config = json.loads(Path("mine/config.json").read_text())
    assert all(str(value) == first[name] for name, value in config["choices"].items())


def test_extract_refuses_what_it_cannot_do(run, here, capsys):
    (here / "taken").mkdir()
    for words, said in {
        ("run=none",): "is not a run folder",
        (f"run={run}", "network=20"): "has evaluations 0 to 19",
        (f"run={run}", "network=best"): "is not an index",
        (f"run={run}", "out=taken"): "exists already",
        (f"run={run}", "size=3"): "nasjax extract has no setting 'size'",
    }.items():
        assert main(["extract", *words]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert not (run / "subnets").exists()


def test_report_writes_the_page_anew(run, capsys):
    page = (run / "report.html").read_bytes()
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").read_bytes() == page
    assert "accuracy_top1" in capsys.readouterr().out
    assert main(["report", "nowhere"]) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["tactic=foo"],
            "unknown tactic 'foo'; allowed: concurrent, ehvi, full, full_on_estimations, proxy, random, weaknas",
        ),
        (["supernet=foo"], "unknown supernet 'foo'; allowed: digits"),
        (["experiment=foo"], "unknown experiment 'foo'; allowed: cifar10, digits"),
        (["speed=3"], "no setting 'speed'; allowed: supernet, task"),
        (["tactic.size=3"], "unknown setting 'tactic.size'; allowed in tactic: start"),
        (["tactic=random", "tactic.size=3"], "unknown setting 'tactic.size'; allowed in tactic: population"),
        (["predictor=ridge", "predictor.penalties=[-1]"], "predictor.penalties must be numbers above 0, not [-1"),
        (["predictor=mlp", "predictor.rate=nan"], "predictor.rate must be above 0, not nan"),
        (["tactic.batch=1.5"], "tactic.batch=1.5 must be a whole number"),
        (["supernet.widths=[a]"], "supernet.widths=[a]: each must be a whole number"),
        (["evaluations"], "is not of the form key=value"),
        (["evaluations=[1"], "is not of the form key=value"),
        (["seed=0,1"], "add -m"),
        (["trainer.epochs=3"], "nasjax search has no setting 'trainer'"),
        (
            ["objectives=[accuracy_top1,latency]"],
            "'latency' cannot be measured here; allowed: accuracy_top1, loss, macs, params, model_size, memory",
        ),
        (["supernet.checkpoint=none.safetensors"], "supernet.checkpoint=none.safetensors is not a file: it does not exist"),
        (["supernet.widths=[16,24,40]"], "tensor 'stages.5.project.conv.kernel' has shape"),
        (["supernet.activations=[relu,relu,tanh]", "supernet.checkpoint=null"], "unknown activation 'tanh'"),
        (["supernet.image_size=16"], "images are 8 x 8 x 1, but the super-network reads 16 x 16 x 1"),
        (["supernet.classes=5", "supernet.checkpoint=null"], "the task has 10 classes, but the super-network 5"),
        (["task=arrays"], "task.path=FILE.npz"),
        (["task=arrays", "task.path=none.npz"], "is not a file"),
        (["task.seed=x"], "task.seed=x must be a whole number"),
        (["task=arrays", "task.classes=ten"], "task.classes=ten must be a whole number"),
        (["task=image_folder", "task.skip_broken=perhaps"], "task.skip_broken=perhaps must be true or false"),
        (["evaluator=masked", "evaluator.at_once=perhaps"], "evaluator.at_once=perhaps must be true or false"),
        (["objectives=macs"], "objectives=macs is not a list: say objectives=[macs]"),
        (["warm_start=[a,b]"], "warm_start=[a,b] is a list: give one value, a folder that has all of these runs in it"),
        (["evaluations=many"], "evaluations=many must be a whole number"),
        (["minutes=soon"], "minutes=soon must be a number"),
        (["objectives=max:acc,min:ms"], "not a list: say objectives=[max:acc,min:ms]\n"),
        (["constraints=ms<=5,acc>=3"], "not a list: say constraints=[ms<=5,acc>=3]\n"),
        (["supernet=tabular", "supernet.genes=d,w"], "not a list: say supernet.genes=[d,w]\n"),
        (["distributed=a,b"], "not a list: say distributed=[a,b]\n"),
        (["seed=???"], "seed=??? is not a value; give one, or leave the setting out"),
        (["hardware=[1,2]"], "hardware=[1,2] is not a name; allowed: command, cpu, csv, gpu"),
        (["tactic=null"], "tactic=null is not a name; allowed: concurrent, ehvi"),
        (["~evaluations"], "~evaluations: settings cannot be removed; leave evaluations out for its default"),
        (["~tracker"], "~tracker: settings cannot be removed; say tracker=none"),
        (["~hardware=cpu"], "~hardware=cpu: settings cannot be removed; say hardware=null"),
        (["-m", "seed=1,2", "evaluations=0"], "evaluations must be a whole number of at least 1, not 0"),
        (["supernet=tabular", "supernet.genes=[[d]]"], "supernet.genes must be a list of strings, not [['d']]"),
        (["minutes=nan"], "minutes must be at least 0, not nan"),
        (["evaluations=" + "9" * 20], "has more than 64 bits"),
        (["tactic=random", "tactic.population=" + "9" * 12], "tactic.population must be at most 1048576, not 999999999999"),
        (["algorithm.population=1000000000"], "algorithm.population must be at most 1048576, not 1000000000"),
        (["evaluator.batch=1000000000"], "evaluator.batch must be at most 16777216, not 1000000000"),
        (["task=image_folder", "task.path=.", "task.limit=-1"], "task.limit must be at least 0, not -1"),
        (["task=image_folder", "task.seed=-1"], "task.seed must be from 0 to 4294967295, not -1"),
        (["run=" + "a/" * 2000], "run= has more than 200 folders in one another"),
        (["references={macs: 1}"], "say references.NAME=VALUE for each"),
        (["tactic=\x1b[31mx"], "is not of the form key=value"),
        (["seed=" + "[" * 3000], "is not of the form key=value"),
        (["-m", "seed=interval(0,3)"], "seed=interval(0,3) has no steps: say seed=range(FIRST,END) or list the values"),
        (["-m", "objectives=max:acc,min:ms"], "objectives=max:acc,min:ms is not a list: say objectives=[max:acc,min:ms]\n"),
        (["tactic=random,full", "-m", "objectives=macs"], "objectives=macs is not a list: say objectives=[macs]\n"),
        (["-m", "tactic=glob(x*)"], "tactic=glob(x*) names no value; allowed: concurrent, ehvi"),
        (
            ["-m", "tactic=random,full", "tactic.start=4"],
            "unknown setting 'tactic.start'; allowed in tactic: population",
        ),
        (["references.macs=far"], "references.macs=far must be a number"),
        (["supernet=tabular"], "supernet.table=FILE.csv"),
        (["evaluator.batch=0"], "evaluator.batch must be above 0"),
        (["-m", "tactic=random,foo"], "unknown tactic 'foo'"),
        (["-m", "seed=0,1", "run=here"], "run= cannot be given with -m"),
    ],
)
def test_a_mistake_is_one_line_exit_code_two_and_nothing_written(here, capsys, words, said):
    assert main(["search", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert list(here.iterdir()) == []


def test_train_refuses_what_it_cannot_do(here, capsys):
    (here / "taken").mkdir()
    (here / "taken" / "kept").touch()
    for words, said in {("run=taken",): "exists already", ("tactic=random",): "nasjax train has no setting 'tactic'",
                        ("supernet=tabular",): "supernet.table"}.items():  # fmt: skip
        assert main(["train", *words]) == 2
        assert said in capsys.readouterr().err
    assert [path.name for path in here.iterdir()] == ["taken"]


def test_own_images(here, capsys):
    digits = tasks.create("digits")
    np.savez("own.npz", x=(40 * digits.train.inputs[:200, :, :, 0] + 50).astype(np.uint8), y=digits.train.targets[:200])
    words = ["task=arrays", "task.path=own.npz", "supernet.checkpoint=null", "evaluations=2", "run=run", "tactic=random"]
    assert main(["search", *words, "evaluator.batch=20"]) == 0
    assert len(rows(here / "run" / "evaluations.csv")) == 2


@pytest.mark.parametrize(
    ("labels", "words", "said"),
    [
        ({17: 255}, [], "the task has 256 classes, but the super-network 10"),
        ({17: 255}, ["task.classes=10"], "y[17] is 255, outside the 10 classes 0 to 9"),
        ({5: -1}, [], "y[5] is -1: classes must be integers from 0"),
    ],
)
def test_a_label_outside_the_classes_is_named(here, capsys, labels, words, said):
    classes = np.arange(40) % 10
    for place, label in labels.items():
        classes[place] = label
    np.savez("own.npz", x=np.zeros((40, 8, 8), np.uint8), y=classes)
    assert main(["search", "task=arrays", "task.path=own.npz", "supernet.checkpoint=null", "run=run", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert [path.name for path in here.iterdir()] == ["own.npz"]


def test_a_sweep_runs_every_combination_once(here, sweeps, capsys):
    words = ["search", "-m", "tactic=random,concurrent", "seed=range(2)", "evaluations=8", *table_words(here)]
    assert main(words) == 0
    folders = sorted(path for path in (here / "multirun").iterdir() if path.is_dir())
    assert len(folders) == 4
    found = [json.loads((folder / "summary.json").read_text()) for folder in folders]
    assert {(s["tactic"], s["seed"]) for s in found} == {(t, s) for t in ("random", "concurrent") for s in (0, 1)}
    assert {folder.name.rpartition("-")[0] for folder in folders} == {
        f"seed={seed},tactic={tactic}" for seed in (0, 1) for tactic in ("random", "concurrent")
    }
    times = [(folder / "summary.json").stat().st_mtime_ns for folder in folders]
    capsys.readouterr()
    assert main(words) == 0
    assert capsys.readouterr().out.count("is done already") == 4
    assert times == [(folder / "summary.json").stat().st_mtime_ns for folder in folders]


def test_constraints_are_swept_as_lists():
    words = hydra_overrides(["constraints=[cost<=60],[cost<=80,acc>=70]"])
    assert list(parse_overrides(words)[0].sweep_string_iterator()) == ["['cost<=60']", "['cost<=80','acc>=70']"]
    assert hydra_overrides(["constraints=cost<=60"]) == ["constraints=['cost<=60']"]
    words = hydra_overrides(["constraints=choice([],[ms<=5, acc>=3])"])
    assert list(parse_overrides(words)[0].sweep_string_iterator()) == ["[]", "['ms<=5','acc>=3']"]


def jobs(*words):
    return jobs_of_sweep(parse_overrides(hydra_overrides(words)), [])


def test_a_sweep_over_a_group_takes_settings_that_all_its_values_have():
    """Though the default tactic has no such setting."""
    assert jobs("tactic=random,concurrent", "tactic.population=4", "seed=range(2)") == [
        [f"tactic={tactic}", "tactic.population=4", f"seed={seed}"] for tactic in ("random", "concurrent") for seed in (0, 1)
    ]
    assert jobs("tactic=glob(r*)") == [["tactic=random"]]
    assert jobs("constraints=choice([],[ms<=5])") == [["constraints=[]"], ["constraints=['ms<=5']"]]


def test_what_is_echoed_is_short_and_has_no_control_characters(here, capsys):
    for words in (["seed=" + "x" * 5000], ["seed=" + "x " * 2500], ["run=" + "a" * 5000], ["tactic=" + "x" * 5000],
                  ["supernet=tabular", "supernet.table='\x1b[31m\x07'", "supernet.genes=[d]"]):  # fmt: skip
        assert main(["search", *words]) == 2
        error = capsys.readouterr().err
        assert len(error) < 1300
        assert error.count("\n") == 1
        assert error[:-1].isprintable()
    assert list(here.iterdir()) == []


def test_what_names_several_values_is_told_of_m_only_where_it_exists(here, capsys):
    for command, instead in (("train", "add -m to run them all"), ("latency", "nasjax latency takes one")):
        assert main([command, "hardware.batch=1,2" if command == "latency" else "seed=0,1"]) == 2
        assert capsys.readouterr().err.endswith(f" names several values: {instead}\n")


def test_advice_names_only_settings_that_the_super_network_has():
    task = tasks.create("digits")
    net = supernets.create("digits", image_size=16)
    with pytest.raises(ValueError, match=r"change supernet\.image_size or supernet\.channels or the data$"):
        task.check(net)
    net.origin = {"name": "own", "target": "mine:Net", "arguments": {}}
    with pytest.raises(ValueError, match=r"reads 16 x 16 x 1: change the data$"):
        task.check(net)
    net = supernets.create("digits", classes=5, checkpoint=None)
    with pytest.raises(ValueError, match=r"but the super-network 5: change supernet\.classes or the labels$"):
        task.check(net)


def test_job_names_tell_jobs_apart():
    assert job_name("seed=1,tactic=full", ["tactic=full", "seed=1"]) == "seed=1,tactic=full"
    long = [job_name(f"a={'x' * 300}{i}", [f"a={'x' * 300}{i}"]) for i in range(3)]
    assert len(set(long)) == 3
    assert max(map(len, long)) < 130
    assert job_name("seed=1", ["seed=1", "path=/a"]) != job_name("seed=1", ["seed=1", "path=/b"])


def test_conf_has_a_file_for_every_name_of_every_table():
    for group, table in GROUPS.items():
        assert {path.stem for path in (CONF / group).glob("*.yaml")} == set(table), group


EXPERIMENTS = sorted((CONF / "experiment").glob("*.yaml"))


TRAINED = [file for file in EXPERIMENTS if "nasjax train" in file.read_text()]


@pytest.mark.parametrize(
    "file",
    [pytest.param(f, marks=[pytest.mark.slow] if f in TRAINED else [], id=f.stem) for f in EXPERIMENTS],
)
def test_every_experiment_composes_and_runs_in_smoke(file, here, monkeypatch):
    match = re.search(r"nasjax (train|search) (\S.*)?experiment=\S+", file.read_text())
    assert match, f"{file.name} does not say its command"
    words = [match[1], f"experiment={file.stem}", "debug=smoke", "run=run"]
    if "table:" in file.read_text():
        config = yaml.safe_load(file.read_text())
        genes, metrics = config["supernet"]["genes"], [goal.split(":")[-1] for goal in config["objectives"]]
        small = [[i % 3, i // 3 % 3, *[i % 2] * (len(genes) - 2), *[float(i)] * len(metrics)] for i in range(18)]
        with Path("small.csv").open("w") as opened:
            csv.writer(opened).writerows([[*genes, *metrics], *small])
        words.append("supernet.table=small.csv")
    if "translation" in file.read_text():
        write_pairs(here)
        words += [
            "task.path=.",
            "task.test=test",
            "task.words=80",
            "supernet.source_words=80",
            "supernet.target_words=80",
            "task.held_out=9",
        ]
    if "image_folder" in file.read_text():
        for name in [f"{part}/{label}/{i}.png" for part in ("train", "val") for label in range(10) for i in range(13)]:
            paint(here / "images" / name, 20 * int(name.split("/")[1]), (32, 32))
        words += ["task.path=images"]
    if "arrays" in file.read_text():
        labels = np.arange(640, dtype=np.uint8) % 10
        np.savez("images.npz", x=np.tile(labels[:, None, None], (1, 28, 28)), y=labels)
        words += ["task.path=images.npz"]
    assert main(words) == 0
    assert (here / "run" / ("record.json" if match[1] == "train" else "report.html")).is_file()


def test_help_is_quick_to_import_and_names_the_groups(capsys):
    done = subprocess.run(
        [sys.executable, "-c", "import sys, nasjax.cli.complete\n"
         "from nasjax.cli import main\ntry: main(['search', '--help'])\n"
         "except SystemExit: pass\nprint([m for m in ('jax', 'hydra', 'flax', 'numpy') if m in sys.modules])"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.rstrip().endswith("[]")
    assert "tactic=concurrent|ehvi|full|full_on_estimations|proxy|random|weaknas  (default: ehvi)" in done.stdout
    assert re.search(r"hardware=command\|.*  \(default: null\)", done.stdout)


@pytest.mark.slow
def test_training_again_comes_within_one_point_of_the_record(here):
    shipped = json.loads((Path(supernets.__file__).parent / "weights" / "digits.json").read_text())
    assert main([*shipped["command"].split()[1:], "run=run"]) == 0
    again = json.loads(Path("run/record.json").read_text())
    for size, accuracies in shipped["scores"].items():
        for split, accuracy in accuracies.items():
            assert abs(again["scores"][size][split] - accuracy) <= 1.0


def test_the_shipped_weights_are_those_of_the_record():
    record = json.loads((Path(supernets.__file__).parent / "weights" / "digits.json").read_text())
    net, task = supernets.create("digits"), tasks.create("digits")
    assert settings("supernet", supernets.SUPERNETS, record["settings"]["supernet"]) == supernets.SUPERNETS["digits"]
    for split in ("validation", "test"):
        found = MaskedConfig().bind(net, task, split)(np.stack([net.space.largest(), net.space.smallest()]))
        for value, size in zip(found["accuracy_top1"], ("largest", "smallest"), strict=True):
            assert value == pytest.approx(record["scores"][size][split], abs=0.4)


def test_the_digits_are_split_as_stated():
    task = tasks.create("digits")
    assert [len(split) for split in (task.train, task.validation, task.test)] == [900, 600, 297]
    every = np.concatenate([split.inputs.reshape(len(split), -1) for split in (task.train, task.validation, task.test)])
    assert len(every) == 1797
    again = tasks.create("digits")
    assert again.digest() == task.digest()
    assert tasks.create("digits", seed=1).digest() != task.digest()


def test_networks_that_answer_differently_have_different_contexts():
    task = tasks.create("digits")
    contexts = set()
    for changes in ({}, {"strides": (1, 1, 1)}, {"activations": ("h_swish", "relu", "relu")}, {"epsilon": 1e-3}):
        net = supernets.create("digits", **changes)
        contexts.add(json.dumps(MaskedConfig().bind(net, task).context, default=str))
    assert len(contexts) == 4


@pytest.mark.slow
def test_extract_refuses_a_run_whose_weights_have_changed(here, capsys):
    weights = supernets.SHIPPED / "digits.safetensors"
    Path("mine.safetensors").write_bytes(weights.read_bytes())
    words = ["supernet.checkpoint=mine.safetensors", "tactic=random", "evaluations=2", "run=run"]
    assert main(["search", *words]) == 0
    net = supernets.create("digits", checkpoint=None, seed=1)
    supernets.save_weights(net, Path("mine.safetensors"), {})
    assert main(["extract", "run=run"]) == 2
    assert "measured with other weights" in capsys.readouterr().err
    assert not Path("run/subnets").exists()


@pytest.mark.parametrize("run", ["file/x", "/proc/x"])
def test_a_folder_that_cannot_be_made_is_one_line(here, capsys, run):
    Path("file").touch()
    assert main(["search", f"run={run}", "evaluations=2"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
