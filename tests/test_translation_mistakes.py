"""Mistakes in pairs of texts, vocabularies and settings of translation: one line that says what is wrong."""

import re
from dataclasses import replace

import pytest
import sacrebleu.metrics
import tiny_transformer as tiny
from test_translation import SETTINGS, write_pairs

from nasjax import tasks
from nasjax.errors import ConfigError
from nasjax.tasks.translation_scores import TranslationScores


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return tasks.create("translation", path=str(write_pairs(tmp_path_factory.mktemp("pairs"))), **SETTINGS)


def damaged(folder, change):
    write_pairs(folder, 30)
    change(folder / "train.en", folder / "train.de")
    return {"path": str(folder), "held_out": 5, "words": 60}


def without_first(text):
    """The text with an empty first line."""
    return "\n" + text.partition("\n")[2]


def rewrite(file, change):
    file.write_text(change(file.read_text(encoding="utf-8")), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (lambda en, de: rewrite(de, lambda text: text + "noch\n"), {}, "train.en has 30 lines, .*train.de 31: line by line"),
        (lambda en, de: de.unlink(), {}, "train.de is missing: task.path needs a file of each language, or its .gz"),
        (lambda en, de: de.write_bytes(b"\xff\xfe" * 99), {}, "train.de is not text in UTF-8"),
        (lambda en, de: rewrite(en, without_first), {"empty": "refuse"}, "line 1 is empty in one file"),
        (lambda en, de: None, {"empty": "maybe"}, "task.empty=maybe is unknown; allowed: drop, keep, refuse"),
        (lambda en, de: None, {"held_out": 15}, "held_out=15 leaves none of 15 pairs for training: set a lower"),
        (lambda en, de: None, {"test": "tset"}, "tset.en is missing: task.path needs a file of each language"),
        (lambda en, de: None, {"target": "en"}, "task.source=en and task.target=en must be two languages"),
        (lambda en, de: None, {"vocabulary": "."}, r"\. holds no vocabulary: there is neither vocabulary.model nor"),
        (lambda en, de: None, {"words": 9000}, "no vocabulary of task.words=9000 can be learnt from this text"),
        (lambda en, de: None, {"longest": 2}, "all 20 pairs have more than task.longest=2 tokens"),
        (lambda en, de: None, {"tokenizer": "moses"}, "task.tokenizer=moses is unknown; allowed: 13a, char"),
        (lambda en, de: None, {"beam": -1}, "task.beam must be 0 to 16777216, not -1"),
        (lambda en, de: None, {"vocabulary": "none.model"}, "task.vocabulary=none.model is not a file: it does not exist"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_line(tmp_path, change, settings, message):
    given = damaged(tmp_path, change) | settings
    with pytest.raises(ConfigError, match=message) as caught:
        tasks.create("translation", **given)
    assert "\n" not in str(caught.value)


def test_empty_lines_are_dropped_and_counted_or_kept(tmp_path, capsys):
    given = damaged(tmp_path, lambda en, de: rewrite(en, without_first))
    assert len(tasks.create("translation", **given).train) == 19
    assert "left out 1 of 30 pairs: a side is empty" in capsys.readouterr().err
    assert len(tasks.create("translation", **given, empty="keep").train) == 20


@pytest.mark.slow
def test_a_network_of_another_vocabulary_or_too_few_positions_is_refused(task):
    with pytest.raises(
        ConfigError, match=r"have 80 and 80 words, the super-network's 20 and 20: set supernet.source_words=80"
    ):
        task.check(tiny.CONFIG.create(0))
    words = {"source_words": 80, "target_words": 80}
    few = replace(tiny.CONFIG, **words, positions=20).create(0)
    with pytest.raises(ConfigError, match=r"need \d\d positions with room to decode, .* has 20: set") as said:
        task.check(few)
    needed = int(re.search(r"supernet.positions=(\d+)", str(said.value))[1])
    task.check(replace(tiny.CONFIG, **words, positions=needed).create(0))
    with pytest.raises(ConfigError, match=f"set supernet.positions={needed}"):
        task.check(replace(tiny.CONFIG, **words, positions=needed - 1).create(0))


def test_weights_of_another_direction_are_refused(task):
    net = replace(tiny.CONFIG, source_words=80, target_words=80, positions=60).create(0)
    net.facts = dict(task.facts())
    task.check(net)
    net.facts = net.facts | {"languages": ["de", "en"]}
    with pytest.raises(ConfigError, match=r"trained to translate de to en: set task.source=de task.target=en"):
        task.check(net)


def test_a_tokenizer_that_misses_its_package_is_one_line(monkeypatch):
    def missing(**_):
        raise RuntimeError("Please install MeCab\nwith pip")

    monkeypatch.setattr(sacrebleu.metrics.BLEU, "__init__", lambda self, **_: missing())
    with pytest.raises(
        ConfigError, match=r"task.tokenizer=ja-mecab cannot be used: RuntimeError: Please install MeCab with pip"
    ):
        TranslationScores("ja-mecab")


def test_what_is_left_out_or_held_out_is_said(tmp_path, capsys):
    given = damaged(tmp_path, lambda en, de: None)
    made = tasks.create("translation", **given, longest=12)
    said = capsys.readouterr().err.splitlines()
    assert [line.partition("*: ")[2] for line in said[:2]] == ["none, 5 random training pairs serve"] * 2
    number, total = re.search(r"train.\*: left out (\d+) of (\d+) pairs: more than 12 tokens", said[2]).groups()
    assert int(total) == 20 and len(made.train) == 20 - int(number) > 0


def test_a_dictionary_of_other_words_is_told(tmp_path, capsys):
    """One word of nine is known in English, all are in German."""
    write_pairs(tmp_path, 30)
    text = (tmp_path / "train.de").read_text(encoding="utf-8")
    for language, words in (("en", {"."}), ("de", set(text.split()))):
        (tmp_path / f"dict.{language}.txt").write_text("".join(f"{word} 1\n" for word in sorted(words)), encoding="utf-8")
    tasks.create("translation", path=str(tmp_path), vocabulary=str(tmp_path), held_out=5)
    line = r"train\.\*: (\d+) % of the (\w+)'s tokens are not in the vocabulary: is the text"
    ((share, side),) = set(re.findall(line, capsys.readouterr().err))
    assert side == "source"
    assert 60 < int(share) < 85


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "told"), [({}, False), ({"held_out": 6}, True), ({"seed": 1}, True)])
def test_other_pairs_held_out_than_in_training_are_told(tmp_path, capsys, changes, told):
    given = damaged(tmp_path, lambda en, de: None)
    trained = tasks.create("translation", **given)
    words = {"source_words": trained.source_words, "target_words": trained.source_words}
    net = replace(tiny.CONFIG, **words, positions=100).create(0)
    net.facts = dict(trained.facts())
    other = replace_vocabulary(tasks.create("translation", **given | changes), trained)
    capsys.readouterr()
    other.check(net)
    wanted = (
        "trained with task.held_out=5 task.seed=0: if the files are the same, they have learnt pairs that are held out now"
    )
    assert (wanted in capsys.readouterr().err) == told


def replace_vocabulary(task, other):
    """The task with the other's vocabularies, as where `task.vocabulary` names them."""
    return task.changed(source_vocabulary=other.source_vocabulary, target_vocabulary=other.target_vocabulary)


def test_more_words_than_a_text_has_are_refused_with_the_most(tmp_path):
    given = damaged(tmp_path, lambda en, de: None)
    with pytest.raises(ConfigError, match="can be learnt from this text: it has words for at most ") as caught:
        tasks.create("translation", **given | {"words": 9000})
    most = int(str(caught.value).rpartition(" ")[2])
    assert tasks.create("translation", **given | {"words": most}).source_words == most


def test_more_tokens_than_positions_are_refused():
    with pytest.raises(ConfigError, match=r"supernet\.length=300 tokens need as many supernet\.positions, not 256"):
        replace(tiny.CONFIG, length=300, positions=256)
