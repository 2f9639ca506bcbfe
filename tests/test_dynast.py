"""Importing DyNAS-T's result tables: repeats, mixed-up columns, contradictory counts, unreadable rows."""

import csv
from pathlib import Path

import pytest

from nasjax import supernets
from nasjax.cli import main
from nasjax.searches.dynast import import_results
from nasjax.supernets.ofa.lists import to_ofa

TRACES = Path(__file__).parents[2] / "shared" / "data" / "dynast-traces"
MBV3 = "ofa_mbv3_d234_e346_k357_w1.0"
HEADER = ["Sub-network", "Date", "Model Parameters", "Latency (ms)", "MACs", "Top-1 Acc (%)"]
SMALLEST = {"wid": None, "ks": [3] * 20, "e": [3] * 20, "d": [2] * 5, "r": [224]}


@pytest.fixture(scope="module")
def mbv3():
    return supernets.abstract(MBV3)


def write(path, rows, header=HEADER):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def row(lists, accuracy, macs=100, params=7, latency=0):
    return [str(lists), "2023-01-01 00:00:00", params, latency, macs, accuracy]


def columns(table):
    return {name: [row[i] for row in table.rows] for i, name in enumerate(table.header)}


def test_repeats_become_their_mean_and_count_whatever_the_entries_of_switched_off_blocks(tmp_path):
    """OFA's lists have entries for switched-off blocks, too; these do not distinguish networks."""
    smallest = {"wid": None, "ks": [3] * 6, "e": [2] * 6, "d": [1] * 3, "r": [8]}
    other = {**smallest, "ks": [3, 5] * 3}
    deeper = {**smallest, "d": [1, 1, 2]}
    one = write(tmp_path / "a.csv", [row(smallest, 70.0), row(deeper, 72.5, 110), row(other, 70.2)])
    two = write(tmp_path / "b.csv", [row(smallest, 70.4)])
    table = import_results([one, two], supernets.abstract("digits"))
    found = columns(table)
    assert found["count"] == [3, 1] and table.evaluations == 4
    assert found["accuracy_top1"] == [pytest.approx(70.2), 72.5]
    assert found["macs"] == [100, 110] and found["depth_3"] == [1, 2]
    assert found["kernel_3_2"] == ["", 3] and found["kernel_2_2"] == ["", ""]
    assert "latency" not in found and any("latency is 0 in every row" in remark for remark in table.remarks)
    assert any(remark.startswith("macs equal nasjax's count for 0 of 2 networks only") for remark in table.remarks)


def test_contradictory_exact_costs_are_refused(tmp_path, mbv3):
    file = write(tmp_path / "a.csv", [row(SMALLEST, 70.0, macs=100), row(SMALLEST, 70.0, macs=101)])
    with pytest.raises(ValueError, match=r"line 2 and .*line 3 are one network, but its macs are 100 and 101"):
        import_results([file], mbv3)


def transformer(depth, width):
    return {"embed": [width], "decoder_layer_num": [depth], "decoder_heads": [8, 4, 8], "encoder_ffn": [1, 2]}


def test_layers_beyond_the_depth_do_not_exist_and_shifted_columns_are_corrected(tmp_path):
    """The Transformers' logs have latency, macs and params under the names of params, latency and macs."""
    header = [*HEADER[:5], "BLEU Score"]
    rows = [row(transformer(depth, 512), 25.0 + depth, params=3.5, latency=2e9, macs=4e7) for depth in (2, 3)]
    table = import_results([write(tmp_path / "a.csv", rows, header)])
    found = columns(table)
    assert found["latency"] == [3.5, 3.5] and found["macs"] == [2e9, 2e9] and found["params"] == [4e7, 4e7]
    assert found["bleu"] == [27.0, 28.0]
    assert table.genes == (genes := ["embed", "decoder_layer_num", "decoder_heads_1", "decoder_heads_2",
                                     "decoder_heads_3", "encoder_ffn_1", "encoder_ffn_2"]), genes  # fmt: skip
    assert found["decoder_heads_3"] == ["", 8]
    assert "corrected" in table.remarks[0]


@pytest.mark.parametrize(
    ("rows", "header", "said"),
    [
        ([row(SMALLEST, 70)], ["Network", *HEADER[1:]], "is not a result table of DyNAS-T: it has no rows with a column"),
        ([], HEADER, "is not a result table of DyNAS-T"),
        (
            [row("__import__('os').getcwd()", 70)],
            HEADER,
            r"line 2: column 'Sub-network' holds .*getcwd.*, which is not an architecture",
        ),
        ([row("[" * 100_000, 70)], HEADER, "line 2: column 'Sub-network' holds .*, which is not an architecture"),
        ([row({"ks": [[3]]}, 70)], HEADER, "line 2: column 'Sub-network' holds .*, which is not a dict of lists"),
        ([row({"ks": []}, 70)], HEADER, "line 2: column 'Sub-network' holds .*, which is not a dict of lists"),
        (
            [row(SMALLEST, 70), row(SMALLEST, "good")],
            HEADER,
            r"line 3: column 'Top-1 .*' holds 'good', which is not a finite",
        ),
        ([row(SMALLEST, 70, macs="inf")], HEADER, "line 2: column 'MACs' holds 'inf', which is not a finite"),
        ([row([1, 2], 70)], HEADER, "line 2: .*, which is not a dict of lists"),
        ([row({**SMALLEST, "ks": [4] * 20}, 70)], HEADER, "line 2: list 'ks' cannot hold 4; allowed: 3, 5, 7"),
        ([row({**SMALLEST, "e": [3] * 19}, 70)], HEADER, "line 2: list 'e' has 19 entries, 20 are needed"),
        ([[str(SMALLEST), "now"]], HEADER[:2], "has no metric; known columns are Model Parameters"),
    ],
)
def test_errors_name_the_row_that_cannot_be_read(tmp_path, mbv3, rows, header, said):
    with pytest.raises(ValueError, match=said):
        import_results([write(tmp_path / "a.csv", rows, header)], mbv3)


def test_once_for_all_architectures_need_a_super_network(tmp_path):
    with pytest.raises(ValueError, match="an architecture of Once-for-All: name its super-network, as in supernet=ofa_mbv3"):
        import_results([write(tmp_path / "a.csv", [row(SMALLEST, 70)])])


def test_the_command_writes_a_table_that_can_be_searched(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    net = supernets.abstract("digits")
    kernels = net.space.smallest()
    kernels[net.space.names.index("kernel_1_1")] = 1
    lists = [to_ofa(net, net.space.decode(arch)) for arch in (net.space.smallest(), net.space.largest(), kernels)]
    rows = [row(lists[i], 70 + i, macs=10 + i) for i in range(3)]
    write(tmp_path / "results.csv", [*rows, row(lists[0], 70.5, macs=10)])
    assert main(["import-results", "results.csv", "supernet=digits", "out=t.csv"]) == 0
    said = capsys.readouterr().out
    assert "4 evaluations of 3 networks, 15 genes." in said
    assert "supernet.table=t.csv supernet.genes=[depth_*,kernel_*,expand_*]" in said
    words = ["supernet=tabular", "supernet.table=t.csv", "supernet.genes=[depth_*,kernel_*,expand_*]"]
    assert main(["search", *words, "tactic=random", "evaluations=3", "run=run"]) == 0
    with open("run/evaluations.csv", newline="") as file:
        found = list(csv.DictReader(file))
    assert sorted(float(row["accuracy_top1"]) for row in found) == [70.25, 71, 72]
    assert "count" not in found[0]

    capsys.readouterr()
    for wrong, line in (
        (["results.csv", "supernet=digits", "out=t.csv"], "out=t.csv exists already"),
        (["supernet=digits"], "needs at least one result table"),
        (["results.csv", f"supernet={MBV3}", "out=u.csv"], "line 2: list 'ks' has 6 entries"),
        (["results.csv", "supernet=tabular", "out=u.csv"], "supernet=tabular is not one of Once-for-All's"),
        (["nothing.csv"], "nothing.csv is not a file"),
    ):
        assert main(["import-results", *wrong]) == 2
        error = capsys.readouterr().err
        assert line in error and error.count("\n") == 1
    assert not Path("u.csv").exists() and not Path("imported.csv").exists()


@pytest.mark.slow
@pytest.mark.skipif(not TRACES.is_dir(), reason="needs the logs of DyNAS-T")
def test_real_logs(mbv3):
    table = import_results(sorted(TRACES.glob("mbnv3w10_*.csv")), mbv3)
    assert table.evaluations == 2373 and len(table.rows) == 2162
    assert "macs equal nasjax's count" in table.remarks and "params equal nasjax's count" in table.remarks
    found = columns(table)
    assert 66 < min(found["accuracy_top1"]) < max(found["accuracy_top1"]) < 78 and sum(found["count"]) == 2373
    with pytest.raises(ValueError, match="are one network, but its macs are"):
        import_results(sorted(TRACES.glob("*_ofa.csv")) + sorted(TRACES.glob("mbnv3w10_linasga_*.csv")), mbv3)
    bleu = columns(import_results([TRACES / "tests_inputs_transformerlt.csv"]))
    transformer = supernets.abstract("transformer_lt_wmt_en_de")
    named = import_results([TRACES / "tests_inputs_transformerlt.csv"], transformer)
    assert list(named.genes) == list(transformer.space.names) and len(named.rows) == 19
    assert min(bleu["macs"]) > 1e9 and max(bleu["params"]) < 1e8 and 22 < min(bleu["bleu"]) < max(bleu["bleu"]) < 27
