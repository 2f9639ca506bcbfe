"""Latencies measured by external programs, and the command `nasjax latency`: results and errors in one line."""

import csv
import os
import select
import stat
from pathlib import Path

import pytest
from flax import nnx
from tiny import tiny_network

import nasjax
from nasjax import supernets
from nasjax.cli import main
from nasjax.hardware.devices import TimingError
from nasjax.hardware.latency_table import branches, extracted
from nasjax.hardware.profiling import networks_to_measure, profile
from nasjax.hardware.targets import CommandTarget


@pytest.fixture(scope="module")
def small_net():
    """42 sub-networks of two blocks."""
    return tiny_network(widths=(8,), strides=(2,), depths=((1, 2),), activations=("relu",), squeeze_excite=(False,),
                        kernels=(3, 5), expands=(1, 3, 6))  # fmt: skip


def program(folder, text):
    file = folder / "timer"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return str(file)


def test_a_program_gets_the_file_of_the_exported_network(small_net, tmp_path):
    pytest.importorskip("flatbuffers")
    small, large = (extracted(small_net, tuple(map(int, arch))) for arch in
                    (small_net.space.smallest(), small_net.space.largest()))  # fmt: skip
    device = CommandTarget(command=program(tmp_path, 'echo "it took"; wc -c < "$1"')).open()
    times = [device(network, network.inputs(2)) for network in (small, large)]
    assert 1000 < times[0].median < times[1].median and times[0].batch == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [("exit 3", "ended with exit code 3: it printed nothing"), ("echo soon", "must print milliseconds last, not soon"),
     ("echo no GPU >&2; exit 1", "ended with exit code 1: no GPU"), ("sleep 9", "took more than 0.2 s"),
     ("echo -4", "must print milliseconds last")],
)  # fmt: skip
def test_the_error_of_a_failing_program_names_it_with_its_output(tmp_path, text, words):
    command = CommandTarget(command=program(tmp_path, text), timeout=0.2 if "sleep" in text else 60).open()
    with pytest.raises(TimingError, match=words):
        command._run(tmp_path / "network.stablehlo")


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux says when another's process has ended")
def test_a_program_that_takes_too_long_is_killed_with_its_children(tmp_path):
    command = CommandTarget(command=program(tmp_path, f"sleep 99 & echo $! > {tmp_path}/child; wait"), timeout=0.5).open()
    with pytest.raises(TimingError, match="took more than"):
        command._run(tmp_path / "network.stablehlo")
    try:
        child = os.pidfd_open(int((tmp_path / "child").read_text()))
    except ProcessLookupError:
        return
    # It was killed, but may take a moment to end on another processor.
    assert select.select([child], [], [], 30)[0]
    os.close(child)


def test_what_is_not_a_program_is_refused_in_one_line(tmp_path):
    script = Path(program(tmp_path, "echo 1"))
    script.write_text("echo 1\n")
    with pytest.raises(ValueError, match=r"timer cannot be run: a script must begin with #!/bin/sh"):
        CommandTarget(command=str(script)).open()._run(tmp_path)
    with pytest.raises(ValueError, match=r"hardware\.command=time 'it: no closing quotation"):
        CommandTarget(command="time 'it").open()


def test_another_program_with_the_same_name_is_another_device(tmp_path):
    first = CommandTarget(command=f"{program(tmp_path, 'echo 5')} -v").open().context
    assert CommandTarget(command=f"{program(tmp_path, 'echo 5')} -v").open().context == first
    second = CommandTarget(command=f"{program(tmp_path, 'echo 77')} -v").open().context
    assert second["device"] == first["device"] and second != first


def test_the_output_of_a_program_need_not_be_text(tmp_path):
    assert CommandTarget(command=program(tmp_path, "printf '\\377\\376 4.5'")).open()._run(tmp_path) == 4.5


def test_a_missing_program_ends_the_profile(small_net, tmp_path):
    pytest.importorskip("flatbuffers")
    with pytest.raises(ValueError, match="/nowhere/timer: there is no such program"):
        profile(small_net, CommandTarget(command="/nowhere/timer", networks=6))
    (tmp_path / "timer").touch()
    with pytest.raises(ValueError, match="cannot be run: make it executable"):
        CommandTarget(command=str(tmp_path / "timer")).open()._run(tmp_path)


@pytest.mark.slow
def test_the_command_line_profiles_recorded_latencies(tmp_path, capsys):
    net = nasjax.supernets.create("digits")
    archs = networks_to_measure(net.space, 12)
    table, out = tmp_path / "board.csv", tmp_path / "out.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*net.space.names, "board"])
        for arch in archs:
            chosen = net.space.decode(arch)
            writer.writerow([*(chosen.get(name, "") for name in net.space.names), 1.0 + float(arch.sum())])
    words = [
        "supernet=digits",
        "hardware=csv",
        f"hardware.file={table}",
        "hardware.column=board",
        "hardware.predictor=ridge",
    ]
    assert main(["latency", *words, f"out={out}", "samples=5"]) == 0
    assert f"Latency on board in {table.name}, batch 1, from 8 measured networks" in capsys.readouterr().out
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["latency"]) for row in rows[:12]] == (1.0 + archs.sum(1)).tolist()
    assert {row["obtained"] for row in rows[12:]} == {"estimated"}


@pytest.mark.parametrize(
    ("words", "said"),
    [([], "nasjax latency needs hardware=NAME"), (["hardware=abacus"], "unknown hardware 'abacus'; allowed: command, cpu"),
     (["hardware=cpu", "hardware.threads=many"], "hardware.threads"), (["hardware=cpu", "samples=-1"], "samples=-1"),
     (["hardware=cpu", "samples=²", "out=t.csv"], "samples=² is not a number of networks"),
     (["hardware=cpu", "samples=5"], "samples=5 estimates are for a file: say out=FILE.csv too"),
     (["hardware=cpu", "tactic=random"], "nasjax latency has no setting 'tactic'"),
     (["hardware=cpu", "hardware.predictor=oracle"], "unknown hardware.predictor 'oracle'; allowed: auto"),
     (["hardware=cpu", "out=nowhere/t.csv"], "out=nowhere/t.csv: there is no folder nowhere"),
     (["hardware=cpu", f"out={__file__}"], "exists already; name another file"),
     (["hardware=cpu", "hardware.within=0"], "hardware.within must be a finite number above 0, not 0"),
     (["hardware=cpu", "hardware.seconds=inf"], "hardware.seconds must be a finite number above 0"),
     (["hardware=csv", "hardware.batch=0"], "hardware.batch must be at least 1"),
     (["hardware=command", "hardware.timeout=-1"], "hardware.timeout must be a finite number above 0"),
     (["hardware=gpu"], "hardware=gpu: JAX sees no GPU here"),
     (["supernet=external", "hardware=cpu"], "external")],
)  # fmt: skip
def test_the_command_line_refuses_invalid_settings_in_one_line(words, said, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["latency", "supernet=digits", *words]) == 2
    printed = capsys.readouterr().err.strip().splitlines()
    assert said in printed[-1] and len(printed) == 1


@pytest.mark.parametrize(
    ("word", "said"),
    [("objectives=[accuracy_top1,latncy]", "objective 'latncy' cannot be measured here"),
     ("constraints=[latncy<=5]", "'latncy' is not known here")],
)  # fmt: skip
def test_a_search_refuses_unknown_names_before_anything_is_timed(word, said, capsys, monkeypatch, tmp_path):
    def never(*_):
        raise AssertionError("timed")

    monkeypatch.setattr("nasjax.cli.console.profiling", never)
    assert main(["search", "hardware=cpu", word, f"run={tmp_path / 'run'}"]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "distinct"),
    [
        # Stem, first block, head; of five stages the first block and one for all others, nine choices each.
        ("ofa_mbv3_d234_e346_k357_w1.0", 3 + 5 * 2 * 9),
        # Stem: two middle widths twice, by three; of four stages 27 first blocks and nine others; three heads.
        ("ofa_resnet50", 2 + 2 + 6 + 4 * (27 + 9) + 3),
    ],
)
def test_a_full_size_network_has_few_distinct_branches(name, distinct):
    net = nnx.eval_shape(lambda: supernets.create(name))
    assert len(branches(net, 1).distinct) == distinct
