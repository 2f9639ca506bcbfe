"""`nasjax extract`: the networks that its words mean, whole or not at all, with what they are worth."""

import csv
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import nasjax
from nasjax import supernets, tasks
from nasjax.cli import main
from nasjax.cli.compose import configuration
from nasjax.cli.extract import _with_latencies
from nasjax.deploy import from_run as extract_run
from nasjax.deploy.from_run import extract_and_write, from_choices, select_networks
from nasjax.pareto import knee, non_dominated_exact


@pytest.fixture
def run(digits_run):
    return digits_run


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


# -- which networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_constraint_takes_the_best_of_all_evaluations_that_keep_it(run):
    """Params are no objective here: the best within them need not be on the front."""
    table = rows(run / "evaluations.csv")
    for name in ("macs", "params"):
        for bound in sorted(int(row[name]) for row in table):
            kept = [row for row in table if int(row[name]) <= bound]
            best = min(kept, key=lambda row: (-float(row["accuracy_top1"]), int(row["macs"]), int(row["index"])))
            (found,) = select_networks(run, f"{name}<={bound}")
            assert found.index == int(best["index"]) and found.metrics["macs"] == int(best["macs"])
    assert select_networks(run) == select_networks(run, "macs<=1e9, accuracy_top1>=0")


def test_all_is_the_front_and_the_knee_is_one_of_it(run):
    front = [int(row["index"]) for row in rows(run / "pareto.csv")]
    assert [wanted.index for wanted in select_networks(run, "all")] == front
    assert select_networks(run, "knee")[0].index in front
    assert select_networks(run, network=front[-1])[0].arch == select_networks(run, "all")[-1].arch


@pytest.mark.parametrize("objectives", [2, 3])
def test_the_knee_is_farthest_from_the_plane_through_the_ends(objectives):
    rng = np.random.default_rng(objectives)
    for _ in range(20):
        points = rng.random((200, objectives)) ** 2 * rng.uniform(0.1, 1e6, objectives) + rng.normal(size=objectives)
        points = points[non_dominated_exact(points)]
        scaled = (points - points.min(0)) / np.ptp(points, axis=0)
        plane = np.linalg.solve(np.eye(objectives), np.ones(objectives))  # Through the unit point of every axis.
        distance = (1 - scaled @ plane) / np.linalg.norm(plane)
        assert knee(points) == distance.argmax()
    assert knee(np.array([[1.0, 5.0]])) == 0
    assert knee(np.array([[0.0, 4.0], [0.1, 4.0]])) == 0  # an objective without a range


def test_architectures_by_hand(tmp_path):
    space = supernets.abstract("digits").space
    for arch in (space.largest(), space.smallest()):
        words = ", ".join(f"{name}={option}" for name, option in space.decode(arch).items())
        (found,) = from_choices(space, words, None)
        assert found.arch == tuple(arch) and found.metrics == {}
    for words, said in (
        ("depth_1=1,nothing=3", "arch: unknown gene 'nothing'"),
        ("depth_1=7", "arch: gene 'depth_1' cannot be '7'; allowed: 1, 2"),
        ("depth_1", "arch: gene 'depth_1' cannot be ''; allowed: 1, 2"),
        ("", r"arch: gene 'depth_1' is missing; allowed: 1, 2"),
    ):
        with pytest.raises(ValueError, match=said):
            from_choices(space, words, None)


# -- handed over ------------------------------------------------------------------------------------------------------------


def test_a_network_of_a_run_leaves_in_every_form(run, here, capsys):
    assert main(["extract", f"run={run}", "select=knee", "export=stablehlo,onnx,safetensors", "out=mine"]) == 0
    printed = capsys.readouterr().out
    names = ["config.json", "network.onnx", "network.safetensors", "network.stablehlo", "ofa.safetensors"]
    assert sorted(file.name for file in Path("mine").iterdir()) == names and ", ".join(names) in printed
    (wanted,) = select_networks(run, "knee")
    (line,) = re.findall(rf"^ *{wanted.index} +–  +–  +([\d.]+) +([\d.]+) +([\d.]+)", printed, re.MULTILINE)
    before, after, size = map(float, line)
    # What the run measured by masks is what the network itself has, but for an image that rounding turns.
    assert after == pytest.approx(wanted.metrics["accuracy_top1"], abs=100 / 600 + 0.006)
    assert size == pytest.approx(Path("mine/network.safetensors").stat().st_size / 1e6, rel=0.01)
    task = tasks.create("digits")
    net = supernets.create("digits")
    logits = jax.jit(lambda images: net(images, wanted.arch))(
        task.validation.inputs
    )  # with the super-network's own statistics
    assert before == pytest.approx(
        100 * (np.asarray(logits).argmax(1) == task.validation.targets).mean(), abs=100 / 600 + 0.006
    )
    assert before != after
    assert [path.name for path in here.iterdir()] == ["mine"]


@pytest.mark.slow
def test_an_architecture_by_hand_needs_no_run(here, capsys):
    space = supernets.abstract("digits").space
    choices = space.decode(space.smallest())
    lines = [",".join(space.names), ",".join(str(choices.get(name, "")) for name in space.names)]
    Path("archs.csv").write_text("\n".join(lines))
    assert main(["extract", "supernet=digits", "archs=archs.csv", "out=hand"]) == 0
    assert json.loads(Path("hand/0/config.json").read_text())["choices"].items() <= choices.items()
    task = tasks.create("digits")
    logits = jax.jit(nasjax.load("hand/0").__call__)(task.validation.inputs)
    accuracy = 100 * (np.asarray(logits).argmax(1) == task.validation.targets).mean()
    assert f"{accuracy:.1f}" in capsys.readouterr().out


def test_all_networks_or_none(run, here, monkeypatch):
    """A mistake in the second leaves nothing of the first."""
    wanted = (select_networks(run, "all") * 2)[:2]
    written = []

    def place(subject, one, place, target, exports, batch):
        if written:
            raise RuntimeError("answers differently")
        place.mkdir(parents=True)
        (place / "network.safetensors").touch()
        written.append(place)
        return extract_run.WrittenSubnet(one, None, target, "accuracy_top1", 0.0, 0.0, 0)

    monkeypatch.setattr(extract_run, "_extract_and_write", place)
    with pytest.raises(RuntimeError, match="answers differently"):
        extract_and_write(None, wanted, [here / "new" / "0", here / "new" / "1"])
    assert list(here.iterdir()) == []
    written.clear()
    extract_and_write(None, wanted[:1], [here / "new" / "0"])
    assert [path.name for path in (here / "new" / "0").iterdir()] == ["network.safetensors"]


def test_folders_are_moved_all_or_none(here, monkeypatch):
    def place(subject, one, place, target, exports, batch):
        place.mkdir(parents=True)
        return extract_run.WrittenSubnet(one, None, target, "accuracy_top1", 0.0, 0.0, 0)

    moved = []

    def full(place, target):
        moved.append(target)
        if len(moved) > 1:
            raise OSError(28, "No space left on device")
        Path(place).rename(target)

    monkeypatch.setattr(extract_run, "_extract_and_write", place)
    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        extract_and_write(None, [None] * 3, [here / "0", here / "1", here / "2"])
    assert moved == [here / "0", here / "1"] and list(here.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_no_more(here, monkeypatch):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    start = f".extract-{socket.gethostname()}-"
    left = [f"{start}{gone.pid}", f"{start}{os.getppid()}", f".extract-elsewhere-{gone.pid}", f"{start}mine"]
    for name in left:
        (here / name).mkdir()
        (here / name / "network.safetensors").touch()

    def fails(*_):
        raise RuntimeError("no network")

    monkeypatch.setattr(extract_run, "_extract_and_write", fails)
    with pytest.raises(RuntimeError, match="no network"):
        extract_and_write(None, [None], [here / "new"])
    assert {path.name for path in here.iterdir()} == set(left[1:])


@pytest.mark.slow
def test_a_network_extracted_before_is_named_with_what_to_say(run, capsys):
    wanted = select_networks(run, "all")[-1]
    there = run / "subnets" / str(wanted.index)
    there.mkdir(parents=True)
    try:
        assert main(["extract", f"run={run}", "select=all"]) == 2
        assert f"{there} exists already, extracted before: say out=FOLDER" in capsys.readouterr().err
    finally:
        shutil.rmtree(run / "subnets")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["select=best"], "select=best must be all, knee, or constraints such as macs<=5"),
        (["select=macs<=1"], "keeps macs<=1; it has macs"),
        (["select=mcas<=1"], "'mcas' is not known here; allowed: accuracy_top1, loss, macs"),
        (["select=macs<=few"], "is not of the form name<=number"),
        (["select=knee", "network=3"], "network= and select= both say which network"),
        (["arch=depth_1=1"], "is not a network of a run: name its folder, out=FOLDER"),
        (["arch=depth_1=9", "out=x"], "gene 'depth_1' cannot be '9'"),
        (["archs=nowhere.csv", "out=x"], "is not a file"),
        (["export=tflite"], ".tflite is not a known export format; allowed: .stablehlo"),
        (["export=onnx", "batch=0"], "batch=0 is not a number of examples"),
        (["task=digits"], "has all settings: leave task=digits out"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(run, here, capsys, words, said):
    assert main(["extract", f"run={run}", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert list(here.iterdir()) == [] and not (run / "subnets").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["supernet=digits"], "takes run=FOLDER, or settings and arch=GENE=OPTION"),
        (["supernet=tabular", "arch=width=1", "out=x"], "needs supernet.table"),
        (["supernet=digits", "speed=3", "arch=depth_1=1", "out=x"], "nasjax extract has no setting 'speed'"),
    ],
)
def test_mistakes_without_a_run(here, capsys, words, said):
    assert main(["extract", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert list(here.iterdir()) == []


@pytest.fixture
def mine(here):
    """Two networks by hand; a device that knows the second."""
    space = supernets.create("digits").space
    archs = np.unique(np.asarray(space.sample(jax.random.key(0), 12)), axis=0)
    rows = [[space.decode(arch).get(name, "") for name in space.names] for arch in archs]
    for file, header, content in (
        ("mine.csv", space.names, rows[:2]),
        ("device.csv", [*space.names, "latency"], [[*row, 10 + i] for i, row in enumerate(rows[1:])]),
    ):
        with open(file, "w", newline="") as out:
            csv.writer(out).writerows([header, *content])
    return ["supernet=digits", "task=digits", "archs=mine.csv"]


def latencies(printed):
    """The words of both latencies of networks 0 and 1."""
    lines = [line for line in printed.splitlines() if re.match(r"^\W*[01]\s", line)]
    return [re.findall(r"[\d.]+(?:e-?\d+)?|–", line)[1:3] for line in lines]


@pytest.mark.slow
def test_networks_given_by_hand_have_latencies_of_a_recorded_device(mine):
    net = supernets.create("digits")
    hardware = configuration("extract", ["hardware=csv", "hardware.file=device.csv"])["hardware"]
    of_a_run = hardware | {"context": {"device": "latency in device.csv"}}
    first, second = (one.metrics for one in _with_latencies(net, of_a_run, from_choices(net.space, None, Path("mine.csv"))))
    assert set(first) == {"latency"} and 5 < first["latency"] < 25
    assert set(second) == {"latency_predicted", "latency_measured"} and second["latency_measured"] == 10


@pytest.mark.slow
def test_networks_given_by_hand_have_latencies_of_the_device_of_a_run(mine, capsys):
    recorded = ["hardware=csv", "hardware.file=device.csv", "objectives=[accuracy_top1,latency]"]
    assert main(["search", "tactic=random", "evaluations=3", *recorded, "run=timed"]) == 0
    capsys.readouterr()
    assert main(["extract", "run=timed", "archs=mine.csv", "out=net"]) == 0
    (first, nothing), (_, second) = latencies(capsys.readouterr().out)
    assert 5 < float(first) < 25 and nothing == "–" and float(second) == 10


@pytest.mark.slow
def test_a_folder_that_exists_is_refused_before_anything_is_timed(mine, capsys):
    Path("there/1").mkdir(parents=True)
    assert main(["extract", *mine, "out=there", "hardware=cpu", "hardware.file=kept.jsonl"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert "there/1 exists already" in said[-1] and not Path("kept.jsonl").exists()
    assert list(Path("there").iterdir()) == [Path("there/1")]


@pytest.mark.slow
def test_networks_given_by_hand_are_timed(mine, capsys):
    quick = ["hardware=cpu", "hardware.table=false", "hardware.networks=6", "hardware.seconds=0.05"]
    assert main(["extract", *mine, "out=timed", *quick, "hardware.file=kept.jsonl"]) == 0
    *kept, pace, first, second = map(json.loads, Path("kept.jsonl").read_text().splitlines())
    assert pace["pace"] == np.median([line["work"] for line in kept])
    found = latencies(capsys.readouterr().out)
    wanted = [line["median"] * pace["pace"] / line["work"] for line in (first, second)]
    np.testing.assert_allclose([float(measured) for _, measured in found], wanted, rtol=1e-2)
    assert all(float(estimate) > 0 for estimate, _ in found)
