"""Translation of text files: reading, subwords, beam search, BLEU; every strategy translates as a plain loop does."""

import gzip
import json
import math
import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sacrebleu.metrics
import tiny_transformer as tiny
from flax import nnx
from tiny import scrambled

from nasjax import tasks
from nasjax.evaluation import EVALUATORS, STRATEGIES, measure
from nasjax.evaluation.halving import better
from nasjax.evaluation.memory import decoding_bytes, network_bytes
from nasjax.evaluation.switch import Switched
from nasjax.searches.problem import search_problem
from nasjax.supernets.extract import extract
from nasjax.supernets.runner import Subnet
from nasjax.supernets.transformer_layers import END, PAD
from nasjax.tasks import beam_search as beam_search_module
from nasjax.tasks.beam_search import beam_search
from nasjax.tasks.translation import room, shifted_back
from nasjax.tasks.translation_scores import BLEU_STATISTICS, TranslationScores, bleu, chrf

NOUNS, VERBS = ("dog", "cat", "bird", "horse", "child"), ("sees", "hears", "likes", "follows")
GERMAN = {"dog": "Hund", "cat": "Katze", "bird": "Vogel", "horse": "Pferd", "child": "Kind", "sees": "sieht",
          "hears": "hört", "likes": "mag", "follows": "verfolgt", "the": "das"}  # fmt: skip


def write_pairs(folder, number=120, seed=0):
    """Files train.en and train.de of sentences that are translated word by word."""
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(number):
        words = ["the", rng.choice(NOUNS), rng.choice(VERBS), "the", rng.choice(NOUNS)]
        lines.append(words if rng.random() < 0.7 else [*words, rng.choice(VERBS), "the", rng.choice(NOUNS)])
    for language, translate in (("en", str), ("de", GERMAN.get)):
        text = "".join(" ".join(map(translate, words)) + " .\n" for words in lines)
        (folder / f"train.{language}").write_text(text, encoding="utf-8")
    return folder


SETTINGS = {"words": 80, "held_out": 9, "beam": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def task(folder):
    return tasks.create("translation", path=str(folder), **SETTINGS)


@pytest.fixture(scope="module")
def net(task):
    words = {"source_words": task.source_words, "target_words": task.source_words}
    layers = {"encoder_layers": 2, "cross_layers": (1, 2), "decoder_depths": (1, 2), "hidden": (5, 9)}
    return scrambled(replace(tiny.CONFIG, **words, **layers, positions=60).create(3), 2)


def plain_beam_search(logits_after, source, beam, penalty, time):
    """One sentence, no cache: `logits_after(source, words so far)`; the best tokens and their score."""
    beams, finished = [([], 0.0)], []
    for step in range(time):
        candidates = []
        for words, score in beams:
            logits = logits_after(source, [END, *words])
            logs = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
            for word, log in enumerate(logs):
                if word != PAD and (word == END if step == time - 1 else step > 0 or word != END):
                    candidates.append(([*words, word], score + log))
        candidates.sort(key=lambda pair: -pair[1])
        for words, score in candidates[:beam]:
            if words[-1] == END and len(finished) < beam:
                finished.append((words, score / (step + 1) ** penalty))
        beams = [pair for pair in candidates[: 2 * beam] if pair[0][-1] != END][:beam]
        if len(finished) == beam:
            break
    return max(finished, key=lambda pair: pair[1])


@pytest.mark.parametrize("beam", [1, 4])
def test_beam_search_finds_what_a_plain_loop_without_cache_finds(net, task, beam, monkeypatch, time=9, penalty=0.6):
    """For 4 beams 2 sentences at a time, so that one that is done makes room for another."""
    monkeypatch.setattr(beam_search_module, "AT_ONCE", 25 if beam == 1 else 2)
    arch = tuple(map(int, np.asarray(net.space.sample(jax.random.key(2), 1))[0]))
    inputs = task.validation.take(np.arange(6)).inputs
    inputs = {name: jnp.asarray(leaf) for name, leaf in inputs.items()}
    found = jax.jit(lambda inputs: beam_search(Subnet(net, arch, net.stored()), inputs, beam, penalty, time))(inputs)
    run = jax.jit(lambda source, target: net.forward({"source": source, "target": target}, arch, net.stored())[0])

    def logits_after(source, words):
        target = np.full((1, time + 1), PAD, np.int32)
        target[0, : len(words)] = words
        return np.asarray(run(source[None], target), np.float64)[0, len(words) - 1]

    for row in range(6):
        words, score = plain_beam_search(logits_after, inputs["source"][row], beam, penalty, time)
        assert found.tokens[row].tolist() == words + [PAD] * (time - len(words))
        np.testing.assert_allclose(found.score[row], score, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [25, 2])
def test_rows_without_end_fill_a_batch_up_and_are_not_translated(net, task, at_once, monkeypatch, beam=3, time=9):
    monkeypatch.setattr(beam_search_module, "AT_ONCE", at_once)
    arch = tuple(map(int, net.space.largest()))
    source = jnp.asarray(task.validation.inputs["source"][:3])
    filled = jnp.concatenate([source[:2], jnp.zeros_like(source), source[2:]])
    run = jax.jit(
        lambda source: beam_search(Subnet(net, arch, net.stored()), {"source": source, "target": source}, beam, 1, time)
    )
    alone, together = run(source), run(filled)
    np.testing.assert_array_equal(together.tokens[jnp.array([0, 1, 5])], alone.tokens)
    assert np.all(together.tokens[2:5] == PAD)


@pytest.fixture(scope="module")
def archs(net):
    return np.asarray(net.space.sample(jax.random.key(1), 3), np.int32)


@pytest.fixture(scope="module")
def by_hand(net, task, archs):
    """Metrics of extracted networks: each sentence alone by `beam_search`, scored by sacrebleu's own corpus functions.

    And the task for them: its references are the first network's translations, with some words exchanged.
    """
    found, translations = [], []
    for arch in archs:
        small = extract(net, tuple(map(int, arch)))
        graph, weights = nnx.split(small)

        @jax.jit
        def run(weights, inputs, graph=graph):
            small = nnx.merge(graph, weights)
            subnet = Subnet(small, (0,) * len(small.space.genes), small.stored())
            most = room(inputs["target"].shape[1])
            return subnet(inputs), beam_search(subnet, inputs, task.beam, task.length_penalty, most).tokens

        split, texts, loss, number = task.validation, [], 0.0, 0
        for i in range(len(split)):
            inputs = {name: leaf[i : i + 1, : split.bucket[i]] for name, leaf in split.inputs.items()}
            logits, tokens = run(weights, inputs)
            texts += task.target_vocabulary.decode(np.asarray(tokens).tolist())
            logits, words = np.asarray(logits, np.float64)[0], split.targets["words"][i]
            logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            known = np.flatnonzero(words != PAD)
            loss -= logs[known, words[known]].sum()
            number += len(known)
        translations.append(texts)
        found.append(loss / number)
    rng, references = np.random.default_rng(0), list(task.references)
    for row, text in zip(task.validation.targets["row"], translations[0], strict=True):
        references[row] = mangled(rng, text or "x", 0.3)
    own = [references[row] for row in task.validation.targets["row"]]
    metrics = sacrebleu.metrics.BLEU(), sacrebleu.metrics.CHRF()
    scores = [[metric.corpus_score(texts, [own]).score for metric in metrics] for texts in translations]
    return np.column_stack([scores, found]), task.changed(references=tuple(references))


# In quick runs all strategies decode the toy of test_toy_translation.py.
@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_translates_as_extracted_networks_do_sentence_by_sentence(net, archs, by_hand, strategy):
    wanted, task = by_hand
    evaluator = EVALUATORS[strategy](batch=4, chunk=3, calibration_examples=0).bind(net, task)
    found = measure(evaluator, archs)
    assert set(evaluator.metrics) == {"bleu", "chrf", "loss"}
    assert (np.ptp(wanted, axis=0) > (20, 20, 0.01)).all()
    np.testing.assert_allclose(np.stack([found[name] for name in ("bleu", "chrf", "loss")], 1), wanted, rtol=1e-5, atol=1e-8)


def mangled(rng, sentence, rate):
    """The sentence with some words lost or exchanged."""
    words = sentence.split()
    return " ".join(word if rng.random() > rate else rng.choice(["", "x", words[0]]) for word in words)


@pytest.mark.parametrize("rate", [0, 0.2, 0.6, 0.97, 1])
def test_bleu_and_chrf_equal_sacrebleus_corpus_scores(task, rate):
    rng = np.random.default_rng(0)
    references = [reference + ", and 3.5% more!" for reference in task.references[:40]]
    texts = [mangled(rng, reference, rate) for reference in references]
    rows = TranslationScores("13a").statistics(texts, references)
    wanted = sacrebleu.metrics.BLEU().corpus_score(texts, [references]).score
    np.testing.assert_allclose(bleu(rows.sum(0)[:BLEU_STATISTICS]), wanted, rtol=1e-5, atol=1e-6)
    wanted = sacrebleu.metrics.CHRF().corpus_score(texts, [references]).score
    np.testing.assert_allclose(chrf(rows.sum(0)[BLEU_STATISTICS:]), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("texts", [[""], ["a"], ["a b c"], ["q r s t u"]])
def test_bleu_and_chrf_of_hardly_anything_are_sacrebleus(texts):
    references = ["a b c d e"]
    rows = TranslationScores("13a").statistics(texts, references)[0]
    assert math.isclose(
        bleu(rows[:BLEU_STATISTICS]), sacrebleu.metrics.BLEU().corpus_score(texts, [references]).score, abs_tol=1e-4
    )
    assert math.isclose(
        chrf(rows[BLEU_STATISTICS:]), sacrebleu.metrics.CHRF().corpus_score(texts, [references]).score, abs_tol=1e-4
    )
    assert np.isfinite(jax.grad(lambda rows: bleu(rows[:BLEU_STATISTICS]) + chrf(rows[BLEU_STATISTICS:]))(rows)).all()


def test_targets_begin_with_end_and_are_followed_by_their_own_words(task):
    split = task.validation
    for source, target, words, row in zip(
        split.inputs["source"], split.inputs["target"], split.targets["words"], split.targets["row"], strict=True
    ):
        assert target[0] == END
        np.testing.assert_array_equal(shifted_back(jnp.asarray(target)[None])[0], words)
        assert task.target_vocabulary.decode([words.tolist()]) == [task.references[row]]
        assert source[source != PAD][-1] == END


def test_the_loss_of_training_is_label_smoothed_cross_entropy(task):
    rng = np.random.default_rng(0)
    split = task.validation.take(np.arange(4))
    logits = rng.normal(size=(*split.targets["words"].shape, task.target_vocabulary.size)).astype(np.float32)
    found = task.loss(jnp.asarray(logits), split.targets)
    for row in range(4):
        words = split.targets["words"][row]
        known = np.flatnonzero(words != PAD)
        logs = logits[row] - np.log(np.exp(logits[row]).sum(-1, keepdims=True))
        wanted = np.full((len(known), logits.shape[-1]), 0.1 / logits.shape[-1])
        wanted[np.arange(len(known)), words[known]] += 0.9
        np.testing.assert_allclose(found[row], -(wanted * logs[known]).sum(1).mean(), rtol=1e-5)


def test_the_same_files_give_the_same_task_and_other_ones_another(folder, task, tmp_path):
    assert tasks.create("translation", path=str(folder), **SETTINGS).digest() == task.digest()
    other = write_pairs(tmp_path)
    text = (other / "train.de").read_text(encoding="utf-8")
    for language in ("en", "de"):  # Compressed, they are the same.
        content = (other / f"train.{language}").read_bytes()
        (other / f"train.{language}").unlink()
        (other / f"train.{language}.gz").write_bytes(gzip.compress(content))
    assert tasks.create("translation", path=str(other), **SETTINGS).digest() == task.digest()
    (other / "train.de").write_text(text.replace("Hund", "Wolf"), encoding="utf-8")
    assert tasks.create("translation", path=str(other), **SETTINGS).digest() != task.digest()
    assert tasks.create("translation", path=str(folder), **SETTINGS | {"beam": 2}).digest() != task.digest()


@pytest.mark.slow
def test_without_beams_the_loss_is_the_only_metric(folder, net, archs, by_hand):
    task = tasks.create("translation", path=str(folder), **SETTINGS | {"beam": 0})
    evaluator = EVALUATORS["masked"](batch=4, chunk=3, calibration_examples=0).bind(net, task)
    found = measure(evaluator, archs)
    assert list(evaluator.metrics) == ["loss"]
    np.testing.assert_allclose(found["loss"], by_hand[0][:, 2], rtol=1e-5)


@pytest.mark.slow
def test_successive_halving_chooses_the_first_half_by_the_loss_of_all_sentences(folder, net, task):
    """Only these are translated whole; the others have the metrics of the first few sentences."""
    archs = np.asarray(net.space.sample(jax.random.key(5), 4), np.int32)
    settings = {"name": "masked", "batch": 9, "chunk": 4, "calibration_examples": 0}
    halved = search_problem(net, task, settings | {"first_examples": 6}).evaluator(archs)
    whole = search_problem(net, task, settings)
    found = whole.evaluator(archs)
    values = np.stack([found["loss"], whole.costs["macs"].exact(archs)], axis=1)
    chosen = better(values, 2, 4)
    for name in ("bleu", "chrf", "loss"):
        same = np.isclose(halved[name], found[name], rtol=1e-5, atol=1e-8)
        assert same[chosen].all()
    assert np.flatnonzero(np.isclose(halved["loss"], found["loss"], rtol=1e-5)).tolist() == chosen.tolist()


def test_results_say_how_bleu_was_computed(task, net):
    signatures = search_problem(net, task, "masked").signatures
    assert signatures["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert signatures["chrf"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")


def test_bleu_and_chrf_equal_what_sacrebleus_command_prints(task, tmp_path):
    rng = np.random.default_rng(4)
    references = list(task.references)
    texts = [mangled(rng, sentence, 0.2) for sentence in references]
    for name, lines in (("references", references), ("texts", texts)):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", tmp_path / "references", "-i", tmp_path / "texts", "-m", "bleu", "chrf"]
    printed = subprocess.run([*command, "-w", "6"], capture_output=True, text=True, check=True).stdout
    totals = TranslationScores("13a").statistics(texts, references).sum(0)
    found = bleu(totals[:BLEU_STATISTICS]), chrf(totals[BLEU_STATISTICS:])
    np.testing.assert_allclose(found, [score["score"] for score in json.loads(printed)], atol=2e-6)
    assert [score["signature"] for score in json.loads(printed)] == list(TranslationScores("13a").signature)


def test_a_small_memory_holds_the_caches_of_few_sentences(folder, net):
    """Caches grow with beams and with the longest sentence's tokens."""
    inputs = {name: np.zeros((1, 40), np.int32) for name in ("source", "target")}
    few, many, longer = (decoding_bytes(net, inputs, steps, beams) for steps, beams in ((20, 1), (20, 10), (40, 10)))
    layers, inner = 2, 8
    assert many - few >= 3 * 4 * 2 * layers * inner * 20 * 9
    assert longer - many >= 3 * 4 * 2 * layers * inner * 20 * 10


@pytest.mark.parametrize("way", ["masked", "switch"])
def test_beam_search_takes_no_more_memory_than_is_planned(net, way, number=20, length=32, beam=4):
    """By the compiler's own count of temporary buffers."""
    runner = Switched(net) if way == "switch" else net
    source = jax.ShapeDtypeStruct((number, length), jnp.int32)

    def translate(arch, source):
        run = Subnet(runner, arch, net.stored())
        return beam_search(run, {"source": source, "target": source}, beam, 0.6, room(length)).tokens

    program = jax.jit(translate).lower(jnp.asarray(net.space.largest()), source).compile()
    inputs = {name: np.zeros((1, length), np.int32) for name in ("source", "target")}
    planned = number * (network_bytes(net) + decoding_bytes(net, inputs, room(length), beam))
    assert program.memory_analysis().temp_size_in_bytes < planned


def test_a_model_of_sentencepiece_and_fairseqs_dictionaries_are_read(folder, tmp_path, task):
    model = tmp_path / "own.model"
    model.write_bytes(task.target_vocabulary.model)
    assert tasks.create("translation", path=str(folder), vocabulary=str(model), **SETTINGS).digest() == task.digest()
    for language, words in (("en", ["the", *NOUNS, *VERBS, "."]), ("de", [*GERMAN.values(), "."])):
        (tmp_path / f"dict.{language}.txt").write_text("".join(f"{word} 7\n" for word in words), encoding="utf-8")
    found = tasks.create("translation", path=str(folder), vocabulary=str(tmp_path), tokenizer="none", held_out=9)
    assert (found.source_words, found.target_vocabulary.size) == (4 + 11, 4 + 11)
    words = found.validation.targets["words"]
    assert found.target_vocabulary.decode(words.tolist()) == [
        found.references[row] for row in found.validation.targets["row"]
    ]
    assert found.target_vocabulary.decode([[3, 4, END, 5]]) == ["<unk> Hund"]
