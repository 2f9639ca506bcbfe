"""Tables as super-networks: what is read, what is refused, and what lies outside the rows."""

import csv
import itertools

import numpy as np
import pytest

import nasjax
from nasjax import supernets
from nasjax.errors import ConfigError


def write(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def tabular(path, *genes):
    return supernets.create("tabular", table=path, genes=genes)


def test_values_come_back_by_architecture(tmp_path):
    rows = [[kernel, word, 10 * kernel + len(word), 0.5 * kernel] for kernel in (7, 3, 5) for word in ("skip", "conv3x3")]
    net = tabular(write(tmp_path / "t.csv", ["k", "op", "acc", "macs"], rows), "k", "op")
    assert net.metrics == ("acc", "macs")
    assert net.space.size == 6
    assert net.space.genes[0].options == (3, 5, 7)
    for kernel, word, accuracy, macs in rows:
        found = net(net.space.encode({"k": kernel, "op": word})[None])
        assert (found["acc"][0], found["macs"][0]) == (accuracy, macs)
    assert net.ranges() == {"acc": (34.0, 77.0), "macs": (1.5, 3.5)}


def test_outside_the_table_the_nearest_row_is_meant(tmp_path):
    whole = list(itertools.product(range(3), repeat=4))
    rows = [[*arch, sum(arch)] for arch in whole[::3]]
    net = tabular(write(tmp_path / "t.csv", ["a", "b", "c", "d", "acc"], rows), *"abcd")
    kept = np.array(sorted(whole[::3]))
    for arch in np.array(whole, np.int32):
        distance = (kept != arch).sum(1)
        assert (net.nearest(arch[None])[0] == kept[distance.argmin()]).all()


def test_an_empty_cell_is_a_gene_that_a_depth_switches_off(tmp_path):
    rows = [[1, 3, "", 50], [1, 5, "", 51], [2, 3, 3, 52], [2, 3, 5, 53], [2, 5, 3, 54], [2, 5, 5, 55]]
    net = tabular(write(tmp_path / "t.csv", ["depth", "k1", "k2", "acc"], rows), "depth", "k1", "k2")
    assert net.space.size == 6
    assert net.space.genes[2].needs == ("depth", 2)
    assert net(net.space.encode({"depth": 1, "k1": 5})[None])["acc"][0] == 51


def test_equal_rows_may_repeat(tmp_path):
    net = tabular(write(tmp_path / "t.csv", ["a", "acc"], [[1, 5], [2, 6], [1, 5]]), "a")
    assert len(net.archs) == 2


HEADER = ["a", "b", "acc"]
ROWS = [[1, 1, 5], [2, 1, 6]]


@pytest.mark.parametrize(
    ("header", "rows", "genes", "words"),
    [
        (HEADER, ROWS, "ax", "has no column 'x'; it has a, b, acc"),
        (HEADER, [[1, 1, 5], [2, 1, "high"]], "ab", "line 3: column 'acc' holds 'high', which is not a number"),
        (HEADER, [[1, 1, 5], [2, 2, 6], [1, 1, 7]], "ab", "lines 2 and 4 are the same network"),
        (HEADER, [], "ab", "has no rows"),
        (HEADER, [[1, 1, 5], [2, 1]], "ab", "line 3 has 2 cells where the header has 3"),
        (["a", "a", "acc"], ROWS, "a", "names column 'a' twice"),
        (HEADER, [["", 1, 5], [2, 1, 6]], "ab", "gene column 'a' has empty cells"),
        (["a", "b"], [[1, 2]], "ab", "has no metric"),
    ],
)
def test_a_bad_table_is_refused_in_one_line(tmp_path, header, rows, genes, words):
    path = write(tmp_path / "t.csv", header, rows)
    with pytest.raises(ValueError, match=r"t\.csv") as caught:
        tabular(path, *genes)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not a file"):
        tabular(str(tmp_path / "none.csv"), "a")
    with pytest.raises(ValueError, match=r"needs supernet\.table"):
        supernets.create("tabular")


def test_lines_are_counted_as_an_editor_does(tmp_path):
    (tmp_path / "t.csv").write_text('a,acc\n1,5\n\n"2\n",6\n3,high\n')
    with pytest.raises(ValueError, match="line 6: column 'acc' holds 'high'"):
        tabular(str(tmp_path / "t.csv"), "a")


def search(path, genes, *objectives, **arguments):
    """The metrics of every architecture of a table, measured by a search that ends."""
    return nasjax.search(tabular(path, *genes), objectives=objectives, tactic="random", evaluations=64, **arguments).metrics


def test_columns_that_are_no_numbers_are_left_out_unless_they_are_asked_for(tmp_path, capsys):
    header = ["", "a", "b", "date", "arch", "acc", "mixed", "Unnamed: 7"]
    rows = [[i, i % 2, i // 2, "2024-01-01", f"|nor_conv~{i}|", 90 + i, "7" if i else "n/a", i] for i in range(4)]
    table = write(tmp_path / "t.csv", header, rows)
    net = tabular(table, "a", "b")
    assert net.metrics == ("acc",)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "left out what is not a metric: date, arch, mixed" in error
    assert sorted(search(table, "ab", "max:acc")["acc"]) == [93.0]
    for goals in ({"objectives": ["max:acc", "min:mixed"]}, {"objectives": ["max:acc"], "constraints": ["mixed<=2"]}):
        with pytest.raises(ConfigError, match="line 2: column 'mixed' holds 'n/a', which is not a number"):
            nasjax.search(net, tactic="random", evaluations=4, **goals)


def test_metrics_about_which_equal_rows_disagree_are_left_out_unless_they_are_asked_for(tmp_path):
    net = tabular(write(tmp_path / "t.csv", ["a", "acc", "row"], [[1, 5, 0], [2, 6, 1], [1, 5, 2]]), "a")
    assert net.metrics == ("acc",)
    with pytest.raises(ConfigError, match=r"lines 2 and 4 are the same network .* but disagree about 'row'"):
        nasjax.search(net, objectives=["max:row"], tactic="random", evaluations=2)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_encodings_separators_and_decimal_commas_are_recognised(tmp_path, encoding, separator):
    lines = ["größe|acc, top|ms", "0.5|71.25|1e3", "1.5|72.5|20.75"]
    text = "\n".join('"' + line.replace("|", f'"{separator}"') + '"' for line in lines)
    (tmp_path / "t.csv").write_text(text.replace(".", "," if separator == ";" else "."), encoding=encoding)
    net = tabular(str(tmp_path / "t.csv"), "größe")
    assert net.metrics == ("acc, top", "ms") and net.space.genes[0].options == (0.5, 1.5)
    assert net.values.tolist() == [[71.25, 1000], [72.5, 20.75]]


def test_decimal_commas_beside_decimal_points_are_refused(tmp_path):
    (tmp_path / "t.csv").write_text("k;acc;macs\n3;71,5;1.234\n5;72,5;2.345\n")
    with pytest.raises(ConfigError, match=r"decimal commas \(column 'acc'\) and decimal points \(column 'macs'\)"):
        tabular(str(tmp_path / "t.csv"), "k")


def test_cells_as_pandas_writes_them_again_are_the_same_table(tmp_path):
    rows = [[1, 3, "", 50, 1], [2, 3, 3, "", 2], [2, 3, 5, 53, ""], [2, 5, 3, 54, 4]]
    net = tabular(write(tmp_path / "t.csv", ["depth", "k1", "k2", "acc", "ms"], rows), "depth", "k1", "k2")
    again = [[i, *(cell if cell == "" else f"{cell}.0" for cell in row)] for i, row in enumerate(rows)]
    other = tabular(write(tmp_path / "u.csv", ["", "depth", "k1", "k2", "acc", "ms"], again), "depth", "k1", "k2")
    assert other.space == net.space and other.space.genes[2].options == (3, 5)
    np.testing.assert_array_equal(other.archs, net.archs)
    np.testing.assert_array_equal(other.values, net.values)
    assert np.isnan(net(net.space.encode({"depth": 2, "k1": 3, "k2": 3})[None])["acc"]).all()


def test_a_table_of_a_hundred_thousand_columns_is_refused_and_one_of_a_thousand_is_read(tmp_path):
    names = [f"m{i}" for i in range(100_000)]
    with pytest.raises(ConfigError, match=r"t\.csv has 100001 columns, 5000 at most are read"):
        tabular(write(tmp_path / "t.csv", ["k", *names], [[3, *names]]), "k")
    assert tabular(write(tmp_path / "t.csv", ["k", *names[:1000]], [[3, *range(1000)]]), "k").values.sum() == 499_500


def test_a_file_that_is_no_text_is_refused_without_being_read_whole(tmp_path):
    with (tmp_path / "t.csv").open("wb") as file:
        file.truncate(20 * 2**30)  # A sparse file of 20 GB.
    with pytest.raises(ConfigError, match=r"t\.csv cannot be read as CSV"):
        tabular(str(tmp_path / "t.csv"), "k")


@pytest.mark.slow
def test_a_table_of_ten_million_cells_is_looked_up_row_by_row(tmp_path):
    rng = np.random.default_rng(0)
    chosen = rng.permutation(6**8)[:1_000_000]
    archs = np.stack([chosen // 6**k % 6 for k in range(8)], axis=1)
    values = np.stack([archs.sum(1) + rng.random(len(archs)), rng.random(len(archs))], axis=1)
    names = [f"g{i}" for i in range(8)]
    cells = [[*arch, *value] for arch, value in zip((10 * archs).tolist(), values.tolist(), strict=True)]
    net = tabular(write(tmp_path / "t.csv", [*names, "acc", "cost"], cells), *names)
    assert len(net.archs) == 1_000_000
    few = rng.choice(len(archs), 1024, replace=False)
    found = net(archs[few].astype(np.int32))
    assert (np.stack([found["acc"], found["cost"]], axis=1) == values[few]).all()
    known = np.zeros(6**8, bool)
    known[chosen] = True
    for missing in rng.choice(np.flatnonzero(~known), 20, replace=False):
        arch = np.array([missing // 6**k % 6 for k in range(8)], np.int32)
        distances = (net.archs != arch).sum(1)
        assert (net.nearest(arch[None])[0] == net.archs[distances.argmin()]).all()
