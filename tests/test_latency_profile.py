"""Profiles and searches on hardware: a device with known latencies, a file, a program. Only one test reads a clock."""

import csv
import json
import math
import re
from contextlib import redirect_stderr
from dataclasses import dataclass, replace

import jax
import numpy as np
import pytest
import yaml
from flax import nnx
from tiny import architectures, tiny_network

import nasjax
from nasjax.cli.extract import table_rows
from nasjax.deploy.from_run import WrittenSubnet, select_networks
from nasjax.hardware.devices import TimingError
from nasjax.hardware.latency_table import extracted
from nasjax.hardware.measurement import Latency
from nasjax.hardware.profiling import networks_to_measure, profile, profiling
from nasjax.hardware.recorded import latency_rows
from nasjax.hardware.targets import CommandTarget, Cpu, Csv, Gpu, Target
from nasjax.report.formatting import format_number
from nasjax.words import plural


def milliseconds(network):
    """True latency on the abacus: an offset, a cost per stage and a cost per weight."""
    weights = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))
    return 0.5 + 0.05 * len(network.stages) + 1e-3 * weights


class Abacus:
    """A device without a clock; `asked` counts the networks that it timed."""

    def __init__(self, name):
        self.context = {"device": name, "threads": 1}
        self.asked = 0

    def __call__(self, network, inputs):
        self.asked += 1
        return Latency(milliseconds(network), 0.0, 6, True, inputs.shape[0], 1, self.context["device"], {}, 0, 0.0)

    def close(self):
        pass


OPENED = []
"""Every device that was opened, the last one last."""


@dataclass(frozen=True)
class AbacusTarget(Target):
    name: str = "abacus"
    networks: int = 15
    batch: int = 3

    def open(self):
        OPENED.append(Abacus(self.name))
        return OPENED[-1]


@pytest.fixture(scope="module")
def small_net():
    """42 sub-networks of two blocks."""
    return tiny_network(widths=(8,), strides=(2,), depths=((1, 2),), activations=("relu",), squeeze_excite=(False,),
                        kernels=(3, 5), expands=(1, 3, 6))  # fmt: skip


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A file of measurements, shared by the tests to save time."""
    return tmp_path_factory.mktemp("latency") / "kept.jsonl"


@pytest.fixture(scope="module")
def made(small_net, kept):
    return profile(small_net, AbacusTarget(file=str(kept)))


def truths(net, archs):
    return np.array([milliseconds(extracted(net, tuple(map(int, arch)))) for arch in archs])


def test_the_table_predicts_networks_that_were_not_measured(small_net, made):
    archs = np.asarray(small_net.space.canonical(np.array(architectures(small_net.space, 6, seed=9), np.int32)))
    np.testing.assert_allclose(made.model.exact(archs), truths(small_net, archs), rtol=2e-3)
    assert made.model.errors.rows == 5 and made.model.errors.mape < 0.5 and made.model.errors.tau > 0.99
    np.testing.assert_allclose(made.measure(archs[:2]), truths(small_net, archs[:2]))
    found = made.metrics(archs[:2])
    np.testing.assert_allclose(found["throughput"], 3000 / found["latency"])
    np.testing.assert_array_equal(found["latency"], found["latency_measured"])
    np.testing.assert_allclose(made.estimates()["throughput"].estimate(archs), 3000 / made.model.exact(archs), rtol=1e-4)
    assert "abacus, batch 3" in made.summary() and "5 networks held out" in made.summary()


@pytest.mark.slow
def test_nothing_is_timed_twice_and_a_truncated_line_is_timed_again(small_net, made, kept, tmp_path):
    lines = kept.read_text().splitlines()
    copy = tmp_path / "copy.jsonl"
    copy.write_text("\n".join(lines[:-2]) + "\n" + lines[-1][:40])
    second = profile(small_net, AbacusTarget(file=str(copy)))
    assert OPENED[-1].asked == 2
    np.testing.assert_array_equal(second.milliseconds, made.milliseconds)
    profile(small_net, AbacusTarget(name="slide rule", file=str(copy), networks=6, table=False))
    assert OPENED[-1].asked == 6
    assert {json.loads(line)["device"] for line in kept.read_text().splitlines()} == {"abacus"}


@dataclass(frozen=True)
class ShakyTarget(AbacusTarget):
    """An abacus that does not settle on networks slower than `most`, and has `shared` disturbed repeats of six."""

    most: float = math.inf
    shared: int = 0
    networks: int = 6
    table: bool = False
    predictor: str = "ridge"

    def open(self):
        device = super().open()

        class Shaky:
            context, close = device.context, device.close

            def __call__(_, network, inputs):
                found = device(network, inputs)
                return replace(found, settled=found.median <= self.most, shared=self.shared)

        return Shaky()


@pytest.mark.slow
def test_unsettled_measurements_are_reported_and_repeated_once_their_lines_are_removed(small_net, tmp_path):
    file = tmp_path / "kept.jsonl"
    archs = networks_to_measure(small_net.space, 6)
    middle = float(np.sort(truths(small_net, archs))[3])
    shaky = profile(small_net, ShakyTarget(file=str(file), most=middle))
    assert shaky.summary().endswith("; 2 of 6 measurements did not settle") and OPENED[-1].asked == 6
    again = profile(small_net, ShakyTarget(file=str(file)))
    assert OPENED[-1].asked == 0 and again.summary() == shaky.summary()
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if '"settled": false' not in line))
    steady = profile(small_net, ShakyTarget(file=str(file)))
    assert OPENED[-1].asked == 2 and "settle" not in steady.summary()


def test_the_share_of_disturbed_repeats_is_reported(small_net):
    words = profile(small_net, ShakyTarget(shared=3)).summary()
    assert words.endswith("; other programs used the processors during 50 % of the repeats")


@dataclass(frozen=True)
class TiringTarget(AbacusTarget):
    """An abacus that slows down: each measurement takes as much longer as the pace workload next to it."""

    slowing: float = 0.02

    def open(self):
        device = super().open()

        class Tiring:
            context, close = device.context, device.close

            def __call__(_, network, inputs):
                found = device(network, inputs)
                work = (1 + self.slowing) ** device.asked
                return replace(found, median=found.median * work, work=work)

        return Tiring()


def test_measurements_at_different_paces_are_scaled_to_the_reference_pace(small_net, made, tmp_path):
    """The reference pace is the median of all measurements, also for those that are made later."""
    file = tmp_path / "kept.jsonl"
    tiring = profile(small_net, TiringTarget(file=str(file)))
    asked = OPENED[-1].asked
    usual = np.median(1.02 ** np.arange(1, asked + 1))
    np.testing.assert_allclose(tiring.milliseconds, usual * made.milliseconds)
    archs = np.asarray(small_net.space.canonical(np.array(architectures(small_net.space, 6, seed=9), np.int32)))
    np.testing.assert_allclose(tiring.model.exact(archs), usual * made.model.exact(archs), rtol=1e-3)
    assert f"the processors' pace varied by {100 * (1.02 ** (0.8 * (asked - 1)) - 1):.0f} %" in tiring.summary()
    unseen = archs[~(archs[:, None] == tiring.archs[None]).all(2).any(1)]
    np.testing.assert_allclose(tiring.measure(unseen), usual * truths(small_net, unseen))
    again = profile(small_net, TiringTarget(file=str(file)))
    assert len(unseen) and OPENED[-1].asked == 0
    np.testing.assert_array_equal(again.milliseconds, tiring.milliseconds)
    np.testing.assert_allclose(again.measure(unseen), usual * truths(small_net, unseen))


@pytest.mark.slow
def test_a_pace_far_from_the_reference_is_reported(small_net, tmp_path):
    file = tmp_path / "kept.jsonl"
    steady = {"file": str(file), "table": False, "networks": 6, "predictor": "ridge"}
    profile(small_net, TiringTarget(slowing=0.0, **steady))
    now = profile(small_net, TiringTarget(slowing=0.5, **steady | {"networks": 12}))
    assert OPENED[-1].asked == 6 and now.timer.reference_pace == 1.0
    later = np.median([1.0] * 6 + [1.5**i for i in range(1, 7)])
    assert f"; the processors' pace is {100 * (later - 1):+.0f} % off" in now.summary()
    np.testing.assert_allclose(now.milliseconds, truths(small_net, now.archs))


@pytest.mark.parametrize("what", ["table", "numbers", "folder"])
def test_a_file_of_something_else_is_refused_before_anything_is_timed(small_net, tmp_path, what):
    file = tmp_path / "kept"
    if what == "folder":
        file.mkdir()
    else:
        file.write_bytes(b"depth_1,latency\n1,2.5\n" if what == "table" else b"\xff\xfe\x00\x01")
    with pytest.raises(ValueError, match=r"hardware\.file=.*(name another file|is not a file: it is a folder)"):
        profile(small_net, AbacusTarget(file=str(file)))
    assert OPENED[-1].asked == 0 and (what == "folder" or len(file.read_bytes()) < 25)


def test_progress_counts_every_program_once(small_net, kept):
    steps = list(profiling(small_net, AbacusTarget(file=str(kept))))
    assert [step.done for step in steps] == list(range(1, steps[0].planned + 1))


def test_the_networks_to_measure_include_both_extremes_and_no_duplicates(small_net):
    archs = networks_to_measure(small_net.space, 15)
    assert len(np.unique(archs, axis=0)) == 15
    np.testing.assert_array_equal(archs[:2], [small_net.space.smallest(), small_net.space.largest()])


@pytest.mark.slow
def test_latencies_of_another_device_replace_a_table(small_net, made, kept, tmp_path):
    header, rows = latency_rows(made, 20)
    table = tmp_path / "other.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    assert [row[-1] for row in rows].count("measured") == 15 and len(rows) > 20
    target = AbacusTarget(file=str(kept), networks=9, source=str(table))
    moved = profile(small_net, target)
    assert moved.model.errors.mape < 5 and OPENED[-1].asked == 0

    recorded = profile(small_net, Csv(file=str(table), batch=3))
    archs = made.archs[:4]
    np.testing.assert_array_equal(recorded.measure(archs), made.milliseconds[:4])
    unknown = np.asarray(small_net.space.sample(jax.random.key(77), 30))
    unknown = unknown[np.isnan(recorded.measure(unknown))][:3]
    np.testing.assert_allclose(recorded.metrics(unknown)["latency"], recorded.model.exact(unknown))
    assert recorded.metric_names == ("latency", "throughput")


def recorded(space, path, rows):
    """Writes a CSV of architectures, milliseconds and how they were obtained."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*space.names, "latency", "obtained"])
        for arch, value, how in rows:
            chosen = space.decode(arch)
            writer.writerow([*(chosen.get(name, "") for name in space.names), value, how])
    return Csv(file=str(path), predictor="ridge")


def test_estimates_in_a_file_are_neither_counted_nor_held_out_nor_recorded_latencies(small_net, tmp_path):
    archs = networks_to_measure(small_net.space, 20)
    truth = truths(small_net, archs)
    rows = [(arch, value * (1 if i < 9 else 100), "measured" if i < 9 else "estimated")
            for i, (arch, value) in enumerate(zip(archs, truth, strict=True))]  # fmt: skip
    found = profile(small_net, recorded(small_net.space, tmp_path / "t.csv", rows))
    assert (found.model.rows, found.model.errors.rows) == (6, 3) and "from 6 measured networks" in found.summary()
    np.testing.assert_array_equal(found.measure(archs), [*truth[:9], *[np.nan] * 11])
    with pytest.raises(ValueError, match="only estimated latencies"):
        profile(small_net, recorded(small_net.space, tmp_path / "t.csv", rows[9:]))


def test_rows_of_one_network_count_once_with_their_median(small_net, tmp_path):
    archs = networks_to_measure(small_net.space, 9)
    rows = [(arch, 1.0 + i, "measured") for i, arch in enumerate(archs)]
    rows += [(archs[3], 4.5, "measured"), (archs[3], 400.0, "measured"), (archs[3], 0.1, "estimated")]
    found = profile(small_net, recorded(small_net.space, tmp_path / "t.csv", rows))
    np.testing.assert_array_equal(found.archs, archs)
    np.testing.assert_array_equal(found.milliseconds, [1, 2, 3, 4.5, 5, 6, 7, 8, 9])


@pytest.fixture(scope="module")
def run(small_net, tiny_task, kept, tmp_path_factory):
    folder = tmp_path_factory.mktemp("search") / "run"
    with (folder.parent / "said.txt").open("w") as said, redirect_stderr(said):
        front = nasjax.search(small_net, tiny_task, objectives=["accuracy_top1", "latency"], constraints=["latency<=4"],
                              tactic="random", evaluations=10, hardware=AbacusTarget(file=str(kept)),
                              run=folder, progress=True)  # fmt: skip
    return folder, front


def test_a_search_from_python_shows_profiling_and_testing_and_counts_their_time(run):
    folder, front = run
    lines = (folder.parent / "said.txt").read_text().splitlines()
    said = [line for line in lines if not line.startswith(("compiling", "compiled"))]
    timed = [int(line.partition("/")[0]) for line in said if ", ms " in line]
    assert len(timed) > 15 and timed == list(range(1, len(timed) + 1)) and f"/{len(timed)}, ms " in said[0]
    evaluated = [i for i, line in enumerate(said) if line.startswith("10/10, hypervolume")]
    networks = plural(len(front), "network")
    assert evaluated and said[evaluated[-1] + 1] == f"test data: 0 of {networks}"
    assert said[-1] == f"test data: {len(front)} of {networks}"
    seconds = json.loads((folder / "summary.json").read_text())["seconds"]
    assert seconds["latency table"] > 0 and seconds["total"] == pytest.approx(sum(seconds.values()) / 2)


@pytest.mark.slow
def test_networks_that_a_search_validates_are_measured(small_net, run):
    folder, front = run
    with (folder / "evaluations.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    for row in rows[:4]:
        chosen = {gene.name: type(gene.options[0])(row[gene.name]) for gene in small_net.space.genes if row[gene.name]}
        found = truths(small_net, [small_net.space.encode(chosen)])[0]
        assert float(row["latency"]) == float(row["latency_measured"]) == pytest.approx(found)
        assert float(row["throughput"]) == pytest.approx(3000 / found)
        assert (row["status"] == "ok") == (found <= 4)
    assert len(front) and max(front.metrics["latency"]) <= 4
    assert yaml.safe_load((folder / "config.yaml").read_text())["hardware"]["context"]["device"] == "abacus"
    methods = json.loads((folder / "summary.json").read_text())["made"]
    assert methods["evaluation"] == "masked"
    assert re.search(r"on abacus, batch 3, .*networks held out: error \d+\.\d %, tau", methods["latency"])
    assert len(front[0].extract().network.stages) >= 4


def test_a_run_stores_predicted_and_measured_latency(small_net, made, run):
    folder, front = run
    with (folder / "evaluations.csv").open() as file:
        rows = list(csv.DictReader(file))
    archs = np.array([wanted.arch for i in range(len(rows)) for wanted in select_networks(folder, network=i)])
    np.testing.assert_allclose([float(row["latency_predicted"]) for row in rows], made.model.exact(archs), rtol=1e-5)
    assert any(row["latency_predicted"] != row["latency_measured"] for row in rows)
    (wanted,) = select_networks(folder)
    handed = WrittenSubnet(wanted, None, folder, "accuracy_top1", 1.0, 2.0, 3)
    head, line = table_rows([handed])
    index = front.indices.tolist().index(wanted.index)
    assert head[1:3] == ["latency (ms)\npredicted", "latency (ms)\nmeasured"]
    assert line[1:3] == [format_number(front.metrics[f"latency_{name}"][index]) for name in ("predicted", "measured")]
    # A run on recorded latencies has one column of them.
    head, line = table_rows([replace(handed, wanted=replace(wanted, metrics={"latency": 3.0}))])
    assert head[1] == "latency (ms)\npredicted\nor recorded" and line[1:3] == [format_number(3.0), "–"]


@pytest.mark.slow
def test_a_run_resumes_on_its_own_device_only(small_net, tiny_task, run, kept):
    arguments = {"objectives": ["accuracy_top1", "latency"], "constraints": ["latency<=4"], "tactic": "random",
                 "run": run[0]}  # fmt: skip
    target = AbacusTarget(file=str(kept))
    front = nasjax.search(small_net, tiny_task, evaluations=12, hardware=target, **arguments)
    assert len(front) and len((run[0] / "evaluations.csv").read_text().splitlines()) == 13
    other = AbacusTarget(name="slide rule", file=str(kept))
    with pytest.raises(ValueError, match=r"abacus.*not.*slide rule"):
        nasjax.search(small_net, tiny_task, evaluations=12, hardware=other, **arguments)


def test_invalid_hardware_settings_are_refused_in_one_line(small_net, tiny_task, tmp_path):
    with pytest.raises(ValueError, match=r"hardware\.threads=9999"):
        Cpu(threads=9999).open()
    with pytest.raises(ValueError, match="hardware=gpu: JAX sees no GPU"):
        Gpu().open()
    with pytest.raises(ValueError, match=r"hardware\.networks must be at least 6"):
        Cpu(networks=2)
    with pytest.raises(ValueError, match=r"hardware\.command=PROGRAM"):
        CommandTarget().open()
    with pytest.raises(ValueError, match=r"hardware\.file=FILE"):
        profile(small_net, "csv")
    with pytest.raises(ValueError, match="unknown hardware 'abacus'; allowed: cpu, gpu, csv, command"):
        profile(small_net, "abacus")
    with pytest.raises(ValueError, match="'energy' cannot be measured here"):
        nasjax.search(small_net, tiny_task, objectives=["accuracy_top1", "min:energy"], evaluations=1)
    table = tmp_path / "t.csv"
    names = small_net.space.names
    chosen = small_net.space.decode(small_net.space.largest())
    table.write_text(",".join([*names, "ms"]) + "\n" + ",".join([*(str(chosen[name]) for name in names), "fast"]) + "\n")
    with pytest.raises(ValueError, match="has no column 'latency'"):
        profile(small_net, Csv(file=str(table)))
    with pytest.raises(ValueError, match="line 2: ms='fast' is not a latency"):
        profile(small_net, Csv(file=str(table), column="ms"))
    table.write_text(table.read_text().removesuffix(",fast\n"))  # Truncated.
    with pytest.raises(ValueError, match=r"line 2 has \d+ cells where the header has"):
        profile(small_net, Csv(file=str(table), column="ms"))
    for content in ("a" * 200_000 + ",ms\n1,2\n", "\ufeffms\n"):
        table.write_bytes(content.encode("utf-16"))
        with pytest.raises(ValueError, match=r"hardware\.file=.*t\.csv (cannot be read as CSV|has no rows)"):
            profile(small_net, Csv(file=str(table)))


# -- networks that a device cannot time -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MoodyTarget(Cpu):
    """An abacus with energy (joules: a fifth of the milliseconds) that fails on networks slower than `most`."""

    most: float = math.inf
    predictor: str = "ridge"
    networks: int = 9
    table: bool = False

    def open(self):
        device = Abacus("moody")
        device.context["energy"] = ["intel-rapl:0"]
        OPENED.append(device)
        return self._moody(device)

    def _moody(self, device):
        class Moody:
            context, close = device.context, device.close

            def __call__(_, network, inputs):
                found = device(network, inputs)
                if found.median > self.most:
                    raise TimingError("the beads are stuck")
                return replace(found, energy=found.median / 5)

        return Moody()


@pytest.mark.slow
def test_networks_that_a_device_cannot_time_are_failed_evaluations(small_net, tiny_task, tmp_path, caplog,
                                                                           monkeypatch):  # fmt: skip
    monkeypatch.setattr("nasjax.hardware.profile.energy_counter", lambda: None)
    archs = networks_to_measure(small_net.space, 9)
    known = truths(small_net, archs)
    most = float(np.sort(known)[-3])
    made = profile(small_net, MoodyTarget(most=most))
    np.testing.assert_allclose(made.milliseconds, known[known <= most])
    np.testing.assert_allclose(made.joules, made.milliseconds / 5)
    assert len(made.archs) == 7 and made.model.rows + made.model.errors.rows == 7
    assert made.ranges()["energy"] == (0, pytest.approx(1.1 * most / 5))
    front = nasjax.search(small_net, tiny_task, objectives=["accuracy_top1", "energy"], constraints=["latency<=100"],
                          tactic="random", evaluations=8, hardware=made, run=tmp_path / "run")  # fmt: skip
    with (tmp_path / "run" / "evaluations.csv").open() as file:
        rows = list(csv.DictReader(file))
    failed = [row["status"] == "failed" for row in rows]
    assert len(rows) == 8 and 0 < sum(failed) < 8 and len(front)
    for row in rows:
        assert (row["status"] == "failed") == (float(row["latency_predicted"]) > 0 and math.isnan(float(row["latency"])))
        if row["status"] == "ok":
            assert float(row["energy"]) == pytest.approx(float(row["latency"]) / 5)
    lines = [record.getMessage() for record in caplog.records if "beads" in record.getMessage()]
    assert lines == ["a network could not be timed: the beads are stuck"] * (2 + sum(failed))


def test_a_device_that_fails_on_all_or_most_networks_ends_the_search_in_one_line(small_net):
    with pytest.raises(ValueError, match=r"^the first 3 networks all failed: the beads are stuck$"):
        profile(small_net, MoodyTarget(most=0.0))
    assert OPENED[-1].asked == 3
    smallest = float(np.sort(truths(small_net, networks_to_measure(small_net.space, 9)))[4])
    with pytest.raises(ValueError, match=r"^5 of 9 networks could be timed, 6 are needed: the beads are stuck$"):
        profile(small_net, MoodyTarget(most=smallest))


def test_a_worker_process_has_its_own_number_of_threads(small_net):
    """The only test that really times something; the time itself is not checked."""
    device = Cpu(threads=1, seconds=0.1).open()
    network = extracted(small_net, tuple(map(int, small_net.space.smallest())))
    try:
        found = device(network, network.inputs(4))
        assert (found.threads, found.batch) == (1, 4) and found.median > 0 and found.flops > 0
        with pytest.raises(ValueError, match="only an extracted network can be timed"):
            device(nnx.eval_shape(lambda: small_net), small_net.inputs(1))
    finally:
        device.close()
