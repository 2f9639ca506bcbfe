"""A sub-network of our Transformer in PyTorch's own layers, with key-value caches, and fairseq's beam search on tensors.

Weights are cut from a super-network here, independently of `nasjax.supernets.extract`. Used by make_translation.py and by
benchmarks/translation.py; needs torch, which is not a dependency of nasjax.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

PAD, END = 1, 2


def tensor(parameter):
    return torch.from_numpy(np.array(parameter[...]))


def linear(layers, inputs, outputs):
    """One layer with the outputs of several dense layers next to each other."""
    made = nn.Linear(inputs, outputs * len(layers))
    made.weight.data = torch.cat([tensor(layer.kernel)[:inputs, :outputs].T for layer in layers]).contiguous()
    made.bias.data = torch.cat([tensor(layer.bias)[:outputs] for layer in layers])
    return made


def norm(layer, width):
    made = nn.LayerNorm(width, eps=layer.epsilon)
    made.weight.data, made.bias.data = tensor(layer.scale)[:width].clone(), tensor(layer.bias)[:width].clone()
    return made


class Embedding(nn.Module):
    """Scaled vectors of tokens, plus sinusoids of the greatest width."""

    def __init__(self, layer, width):
        super().__init__()
        full, half = layer.full_width, layer.full_width // 2
        self.words = nn.Embedding.from_pretrained(tensor(layer.embed.table)[:, :width].contiguous())
        angles = torch.arange(layer.positions + 2).float()[:, None]
        angles = angles * torch.exp(torch.arange(half).float() * -(math.log(10_000) / max(1, half - 1)))
        places = torch.cat([angles.sin(), angles.cos(), torch.zeros(len(angles), full % 2)], 1)
        places[PAD] = 0
        self.register_buffer("places", places[:, :width].contiguous())
        self.scale = width**0.5

    def forward(self, tokens, at):
        """`at`: places counted from 1, 0 for padding; a tensor or one number."""
        return self.words(tokens) * self.scale + self.places[PAD + at]


class EncoderLayer(nn.Module):
    def __init__(self, attention, feed, width, heads, hidden):
        super().__init__()
        key_value, inner = attention.key_value, attention.key_value.key.kernel.shape[1]
        self.heads = heads
        self.qkv = linear([attention.attention.query, key_value.key, key_value.value], width, inner)
        self.out = linear([attention.attention.output], inner, width)
        self.attention_norm, self.norm = norm(attention.norm, width), norm(feed.norm, width)
        self.up, self.down = linear([feed.feed.hidden], width, hidden), linear([feed.feed.output], hidden, width)

    def forward(self, x, mask):
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, mask)
        x = self.attention_norm(x + self.out(mixed.transpose(1, 2).flatten(2)))
        return self.norm(x + self.down(F.relu(self.up(x))))


class DecoderLayer(nn.Module):
    def __init__(self, memory, attention, cross, feed, encoder_width, width, genes):
        super().__init__()
        key_value, inner = attention.key_value, attention.key_value.key.kernel.shape[1]
        self.heads, self.cross_heads, self.outputs, hidden = genes
        self.qkv = linear([attention.attention.query, key_value.key, key_value.value], width, inner)
        self.out = linear([attention.attention.output], inner, width)
        self.memory = linear([memory.key_value.key, memory.key_value.value], encoder_width, inner)
        self.cross_query = linear([cross.attention.query], width, inner)
        self.cross_out = linear([cross.attention.output], inner, width)
        self.norms = nn.ModuleList(norm(stage.norm, width) for stage in (attention, cross, feed))
        self.up, self.down = linear([feed.feed.hidden], width, hidden), linear([feed.feed.output], hidden, width)

    def remember(self, encoded, mask):
        """Keys and values (2, batch, heads, time, columns) of the last encoder layers, and their mask."""
        x = torch.cat(encoded[: self.outputs], 1)
        memory = self.memory(x).unflatten(2, (2, self.cross_heads, -1)).permute(2, 0, 3, 1, 4).contiguous()
        return memory, mask.repeat(1, 1, 1, self.outputs)

    def forward(self, x, cache, memory, mask):
        """One token of each beam (batch, beam, width); `cache` (2, batch * beam, heads, time, columns) or None."""
        batch, beam, _ = x.shape
        qkv = self.qkv(x).view(batch * beam, 3, self.heads, 1, -1).transpose(0, 1)
        cache = qkv[1:] if cache is None else torch.cat([cache, qkv[1:]], 3)
        mixed = F.scaled_dot_product_attention(qkv[0], cache[0], cache[1])
        x = self.norms[0](x + self.out(mixed.view(batch, beam, -1)))
        # All beams of a sentence read the same memory: they are its queries.
        query = self.cross_query(x).unflatten(2, (self.cross_heads, -1)).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(query, memory[0], memory[1], mask)
        x = self.norms[1](x + self.cross_out(mixed.transpose(1, 2).flatten(2)))
        return self.norms[2](x + self.down(F.relu(self.up(x)))), cache


class Translator(nn.Module):
    """The sub-network of `net` with the given options, a dictionary by name of the gene."""

    def __init__(self, net, options):
        super().__init__()
        stages = {}
        for stage in net.stages:
            stages.setdefault(type(stage).__name__, []).append(stage)
        narrow, width = options["encoder_width"], options["decoder_width"]

        def genes(layer, *names):
            return [options[f"{name}_{layer + 1}"] for name in names]

        self.source = Embedding(stages["EncoderEmbed"][0].embed, narrow)
        self.encoder = nn.ModuleList(
            EncoderLayer(*pair, narrow, *genes(i, "encoder_heads", "encoder_hidden"))
            for i, pair in enumerate(zip(stages["EncoderAttention"], stages["EncoderFeedForward"], strict=True))
        )
        self.target = Embedding(stages["DecoderEmbed"][0].embed, width)
        kinds = ("Memory", "DecoderAttention", "CrossAttention", "DecoderFeedForward")
        self.decoder = nn.ModuleList(
            DecoderLayer(
                *(stages[kind][i] for kind in kinds), narrow, width,
                genes(i, "decoder_heads", "cross_heads", "cross_layers", "decoder_hidden"),
            )
            for i in range(options["decoder_depth"])
        )  # fmt: skip
        table = tensor(stages["WordScores"][0].scores.table)
        self.scores = nn.Linear(width, len(table), bias=False)
        self.scores.weight.data = table[:, :width].contiguous()

    def encode(self, source):
        """For each decoder layer its memory and mask."""
        known = source != PAD
        mask = known[:, None, None]
        x = self.source(source, known.cumsum(1) * known)
        encoded = []
        for layer in self.encoder:
            x = layer(x, mask)
            encoded.insert(0, x)
        return [layer.remember(encoded, mask) for layer in self.decoder]

    def step(self, tokens, at, caches, memories):
        """Logits (batch, beam, words) after one more token of each beam, at place `at` (from 1), and the caches."""
        x, after = self.target(tokens, at), []
        for layer, cache, memory in zip(self.decoder, caches, memories, strict=True):
            x, cache = layer(x, cache, *memory)
            after.append(cache)
        return self.scores(x), after


def beam_search(net, source, beam, penalty, time):
    """Fairseq's beam search on tensors: the best tokens (batch, time) of each sentence and their scores.

    Caches are reordered by index_select; sentences that are done leave the batch, as in fairseq.
    """
    batch, device = len(source), source.device
    found = torch.full((batch, time), PAD, device=device)
    found_scores = torch.full((batch,), -math.inf, device=device)
    rows = torch.arange(batch, device=device)  # of the sentences that are not done
    number = torch.zeros(batch, dtype=torch.long, device=device)
    memories, caches = net.encode(source), [None] * len(net.decoder)
    tokens = torch.full((batch, beam, time), PAD, device=device)
    last = torch.full((batch, 1), END, device=device)
    scores = torch.zeros(batch, 1, device=device)
    for step in range(time):
        logits, caches = net.step(last, step + 1, caches, memories)
        logs = torch.log_softmax(logits, -1)
        logs[..., PAD] = -math.inf
        if step == time - 1:
            logs[..., :END], logs[..., END + 1 :] = -math.inf, -math.inf
        elif step == 0:
            logs[..., END] = -math.inf
        words = logs.shape[-1]
        candidates = (logs.add_(scores[..., None])).flatten(1)
        best, chosen = candidates.topk(min(2 * beam, candidates.shape[1]))
        parents, chosen = chosen // words, chosen % words
        ends = chosen == END
        own = ends[:, :beam] & (best[:, :beam] > -math.inf)
        if own.any():
            own &= own.cumsum(1) <= (beam - number)[:, None]
            ended = torch.where(own, best[:, :beam] / (step + 1) ** penalty, -math.inf)
            ended, place = ended.max(1)
            better = (ended > found_scores[rows]).nonzero()[:, 0]
            if len(better):
                words_so_far = tokens[better, parents[better, place[better]]]
                words_so_far[:, step] = END
                found[rows[better]], found_scores[rows[better]] = words_so_far, ended[better]
            number = number + own.sum(1)
        kept = ends.to(torch.uint8).argsort(dim=1, stable=True)[:, :beam]
        scores, last, parents = best.gather(1, kept), chosen.gather(1, kept), parents.gather(1, kept)
        order = parents + caches[0].shape[1] // len(rows) * torch.arange(len(rows), device=device)[:, None]
        tokens = tokens.gather(1, parents[..., None].expand(-1, -1, time))
        tokens[..., step] = last
        going = number < beam
        if not going.all():
            left = going.nonzero()[:, 0]
            if not len(left):
                break
            rows, number, order, tokens, scores, last = (
                part.index_select(0, left) for part in (rows, number, order, tokens, scores, last)
            )
            memories = [(memory.index_select(1, left), mask.index_select(0, left)) for memory, mask in memories]
        caches = [cache.index_select(1, order.flatten()) for cache in caches]
    return found, found_scores
