"""The arithmetic of the cells and of the loss in plain numpy, written from the formulas and not from the code under test."""

from __future__ import annotations

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru_cell(x, h, kernel, recurrent, input_bias, recurrent_bias):
    """Keras' GRU with reset_after: gates update, reset, candidate."""
    n = h.shape[-1]
    a, b = x @ kernel + input_bias, h @ recurrent + recurrent_bias
    z = sigmoid(a[:n] + b[:n])
    r = sigmoid(a[n : 2 * n] + b[n : 2 * n])
    candidate = np.tanh(a[2 * n :] + r * b[2 * n :])
    return z * h + (1 - z) * candidate


def lstm_cell(x, h, c, kernel, recurrent, bias):
    """Keras' LSTM: gates input, forget, candidate, output."""
    n = h.shape[-1]
    a = x @ kernel + h @ recurrent + bias
    i, f, g, o = sigmoid(a[:n]), sigmoid(a[n : 2 * n]), np.tanh(a[2 * n : 3 * n]), sigmoid(a[3 * n :])
    c = f * c + i * g
    return o * np.tanh(c), c


def run_model(weights, ids, state=None):
    """Logits [n, V] after each id, and the last state [S], in float64.

    `weights` has the attributes cell, embedding, layers (each with kernel, recurrent_kernel, input_bias, recurrent_bias),
    output_kernel and output_bias.
    """
    n = weights.output_kernel.shape[0]
    per_layer = 1 if weights.cell == "gru" else 2
    state = np.zeros(n * per_layer * len(weights.layers)) if state is None else np.array(state, np.float64)
    logits = []
    for token in ids:
        x = weights.embedding[token].astype(np.float64)
        parts = np.split(state, per_layer * len(weights.layers))
        after = []
        for i, layer in enumerate(weights.layers):
            if weights.cell == "gru":
                x = gru_cell(x, parts[i], layer.kernel, layer.recurrent_kernel, layer.input_bias, layer.recurrent_bias)
                after.append(x)
            else:
                x, c = lstm_cell(x, parts[2 * i], parts[2 * i + 1], layer.kernel, layer.recurrent_kernel, layer.input_bias)
                after += [x, c]
        state = np.concatenate(after)
        logits.append(x @ weights.output_kernel + weights.output_bias)
    return np.array(logits), state


def nats_per_character(weights, ids):
    """N ids give N - 1 predictions from a zero state, softmax over all V."""
    logits, _ = run_model(weights, ids[:-1])
    return -log_softmax(logits)[np.arange(len(ids) - 1), ids[1:]].mean()


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def distribution(logits, bias=None, banned=(), repetition_penalty=1.0, recent=(), temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    """The probabilities of the next token, from the controls' definitions in docs/command-line.md and in their order there.

    One token at a time, in float64; token 0 is `[UNK]`, which is never drawn. `bias` maps ids to what is added; `banned` and
    `recent` are ids.
    """
    scores = {i: float(x) + (bias or {}).get(i, 0.0) for i, x in enumerate(logits) if i != 0 and i not in banned}
    for i in set(recent) & set(scores):
        scores[i] = scores[i] / repetition_penalty if scores[i] > 0 else scores[i] * repetition_penalty
    best = max(scores.values())
    if temperature == 0:
        weights = {i: float(x == best) for i, x in scores.items()}
    else:
        weights = {i: np.exp((x - best) / temperature) for i, x in scores.items()}
    ranked = sorted(weights, key=lambda i: -weights[i])
    if top_k:
        threshold = weights[ranked[min(top_k, len(ranked)) - 1]]
        ranked = [i for i in ranked if weights[i] >= threshold]
    if top_p < 1:
        total, kept, mass = sum(weights[i] for i in ranked), [], 0.0
        for i in ranked:
            if mass >= top_p * total:
                break
            kept.append(i)
            mass += weights[i]
        ranked = kept
    ranked = [i for i in ranked if weights[i] >= min_p * weights[ranked[0]]]
    total = sum(weights[i] for i in ranked)
    return np.array([weights[i] / total if i in ranked else 0.0 for i in range(len(logits))])


def draws(probabilities, seed, rows):
    """The first token of each of some rows: the Gumbel trick, with each row's own generator as docs/command-line.md says."""
    children = np.random.SeedSequence(seed).spawn(rows)
    noise = -np.log(-np.log([np.random.Generator(np.random.PCG64(child)).random(len(probabilities)) for child in children]))
    with np.errstate(divide="ignore"):
        return (np.log(probabilities) + noise).argmax(axis=1)
