"""Golden translations of one small sub-network by PyTorch's own layers: greedy, and beam search in plain Python.

From the repository's root, in an environment with nasjax and torch 2.13.0 (seconds):

    PYTHONPATH=tests:. python tests/golden/make_translation.py

writes tests/golden/translation.npz: for beams of 1 and 5 the tokens (sentences, time) and scores. The network and its
sentences are `translator` of tests/tiny_transformer.py. Each sentence is searched for by lists in Python, with one cache a
beam; the search on tensors that benchmarks/translation.py times must find the same.
"""

from pathlib import Path

import numpy as np
import tiny_transformer as tiny
import torch
from torch_transformer import END, PAD, Translator, beam_search

BEAMS, PENALTY = (1, 5), 0.6


def plain_beam_search(net, source, row, beam):
    """The best tokens of the sentence `row`, and their score: log probability over length to the power of PENALTY."""
    memories = [(memory[:, row : row + 1], mask[row : row + 1]) for memory, mask in net.encode(source)]
    beams, finished = [([], 0.0, [None] * len(net.decoder))], []
    for step in range(tiny.TIME):
        candidates = []
        for words, score, caches in beams:
            last = torch.tensor([[words[-1] if words else END]])
            logits, caches = net.step(last, step + 1, caches, memories)
            for word, log in enumerate(torch.log_softmax(logits[0, 0], 0).tolist()):
                if word != PAD and (word == END if step == tiny.TIME - 1 else step > 0 or word != END):
                    candidates.append(([*words, word], score + log, caches))
        candidates.sort(key=lambda candidate: -candidate[1])
        for words, score, _ in candidates[:beam]:
            if words[-1] == END and len(finished) < beam:
                finished.append((words, score / len(words) ** PENALTY))
        if len(finished) == beam:
            break
        beams = [candidate for candidate in candidates[: 2 * beam] if candidate[0][-1] != END][:beam]
    return max(finished, key=lambda pair: pair[1])


@torch.inference_mode()
def main():
    net, arch, source = tiny.translator()
    ours = Translator(net, net.space.decode(arch)).eval()
    source, golden = torch.from_numpy(np.array(source)).long(), {}
    for beam in BEAMS:
        found = [plain_beam_search(ours, source, row, beam) for row in range(len(source))]
        tokens = np.array([words + [PAD] * (tiny.TIME - len(words)) for words, _ in found])
        scores = np.array([score for _, score in found])
        batched = beam_search(ours, source, beam, PENALTY, tiny.TIME)
        np.testing.assert_array_equal(batched[0], tokens)
        np.testing.assert_allclose(batched[1], scores, rtol=1e-5)
        golden |= {f"tokens_{beam}": tokens.astype(np.int32), f"scores_{beam}": scores}
        print(f"beam {beam}: lengths {(tokens != PAD).sum(1)}, scores {scores.round(3)}")
    np.savez_compressed(Path(__file__).parent / "translation.npz", **golden)


if __name__ == "__main__":
    main()
