"""Energy: counters in a fake powercap folder, and the energy of a measurement."""

import os

import numpy as np
import pytest
from test_latency import Clock

import nasjax
from nasjax.hardware.energy import energy_counter
from nasjax.hardware.measurement import Precision, Program, measure_latency
from nasjax.hardware.profile import check_energy


@pytest.fixture
def powercap(tmp_path):
    """Two packages; the first has an inner domain, and the psys domain counts everything again."""
    domains = (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core"), ("intel-rapl:1", "package-1"),
               ("intel-rapl:2", "psys"))  # fmt: skip
    for zone, name in domains:
        folder = tmp_path / zone
        folder.mkdir()
        for file, text in (("name", name), ("energy_uj", "500"), ("max_energy_range_uj", "1000000")):
            (folder / file).write_text(f"{text}\n")
    (tmp_path / "intel-rapl").mkdir()
    return tmp_path


def spend(powercap, zone, microjoules):
    file = powercap / zone / "energy_uj"
    file.write_text(str((int(file.read_text()) + microjoules) % 1_000_000))


def test_packages_are_summed_and_counters_may_wrap(powercap):
    counter = energy_counter(powercap)
    assert counter.read() == (500, 500)
    for spent in ((0, 0), (1000, 20), (999_900, 0), (999_999, 999_999)):
        before = counter.read()
        for zone, microjoules in zip(("intel-rapl:0", "intel-rapl:1"), spent, strict=True):
            spend(powercap, zone, microjoules)
        spend(powercap, "intel-rapl:0:0", 77)
        spend(powercap, "intel-rapl:2", 77)
        assert counter.joules(before, counter.read()) == pytest.approx(1e-6 * sum(spent), abs=1e-12)


def test_the_energy_of_a_measurement_leaves_out_warm_up_runs(powercap):
    """The first run takes a hundred times as much and does not count; the counter wraps on the way."""
    clock = Clock(lambda i: 0.01)

    def run():
        spend(powercap, "intel-rapl:1", 7_000 if clock.runs else 900_000)
        clock.run()

    precision = Precision(warm=0.05, least=0.1)
    arguments = {"batch": 1, "threads": 1, "device": "abacus", "precision": precision}
    found = measure_latency(Program(run, 0, 0.0), clock, counter=energy_counter(powercap), **arguments)
    assert 6 <= found.repeats < 14 and found.energy == pytest.approx(0.007)
    assert np.isnan(measure_latency(Program(run, 0, 0.0), clock, **arguments).energy)


def test_a_missing_counter_is_refused_in_one_line(powercap, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(ValueError, match=rf"shows none: no {empty}/intel-rapl:\*/name says package") as refused:
        energy_counter(empty)
    assert "\n" not in str(refused.value)
    (powercap / "intel-rapl:0" / "name").unlink()
    (powercap / "intel-rapl:1" / "name").unlink()
    with pytest.raises(ValueError, match="shows none"):
        energy_counter(powercap)


def test_the_error_of_an_unreadable_counter_names_its_file(powercap):
    file = powercap / "intel-rapl:1" / "energy_uj"
    file.chmod(0)
    if os.access(file, os.R_OK):  # The tests run as root: nobody can read a folder as a file.
        file.unlink()
        file.mkdir()
    with pytest.raises(ValueError, match=rf"energy needs {file}, which cannot be read.*sudo chmod a\+r {file}"):
        energy_counter(powercap)


def test_energy_is_refused_before_anything_is_timed(monkeypatch, tiny_net, tiny_task):
    def missing():
        raise ValueError("there is none")

    monkeypatch.setattr("nasjax.hardware.profile.energy_counter", missing)
    for words in (["accuracy_top1", "energy"], ["accuracy_top1", "min:energy"]):
        with pytest.raises(ValueError, match="there is none"):
            nasjax.search(tiny_net, tiny_task, objectives=words, hardware="cpu", evaluations=1)
    with pytest.raises(ValueError, match="there is none"):
        check_energy(["energy<=3"], "cpu")
    with pytest.raises(ValueError, match="energy can be measured with hardware=cpu only"):
        check_energy(["energy"], {"name": "command", "command": "timer"})
    check_energy(["accuracy_top1", "max:energy_left"], "cpu")
    check_energy(["energy"], None)
