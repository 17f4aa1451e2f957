"""GRU and LSTM layers of Keras with a faster loop and gradient for the CPU.

TensorFlow differentiates a loop step by step: it adds to the gradient of the recurrent weights, 12 MB for a GRU of 1024 units, at
every character. Here the backward steps compute only the gradients of the gates, and one product at the end sums over time and
batch (Appleyard et al. 2016, "Optimizing Performance of Recurrent Neural Networks on GPUs", section 3). Tensors inside have the
batch last, [rows, B]: gates are then slices without a copy, and the weights need no repacking for a product. States are float32
whatever the precision of the products is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from .dropout import SharedDropout

Tensors = tuple[tf.Tensor, ...]


class Equations(NamedTuple):
    """One step of a cell and its derivative, in float32; G rows of gates in blocks of U, each state [U, B]."""

    step: Callable[[tf.Tensor, tf.Tensor, Tensors], tuple[Tensors, Tensors]]
    """(input's part of the gates [G, B], state's part [G, B], states before) -> (states after, tensors to save)."""

    derivative: Callable[[Tensors, Tensors], tuple[Tensors, Tensors]]
    """(saved tensors, gradients of the states after) -> (gradients of the gates, direct gradients of the states before).

    Direct means without the path through the gates. The gradients of the gates are four blocks: the first G rows are those of the
    input's part, the last G rows those of the state's part.
    """

    saved: int
    """Number of tensors [U, B] that a step saves; the first is h before the step."""


def gru_step(of_input: tf.Tensor, of_state: tf.Tensor, states: Tensors) -> tuple[Tensors, Tensors]:
    """GRU step (Cho et al. 2014), reset after the product; gate order c, z, r in the input's part, z, r, c in the state's."""
    (h,) = states
    input_c, input_z, input_r = tf.split(of_input, 3)
    state_z, state_r, state_c = tf.split(of_state, 3)
    z, r = tf.sigmoid(input_z + state_z), tf.sigmoid(input_r + state_r)
    c = tf.tanh(input_c + r * state_c)
    return (c + z * (h - c),), (h, z, r, c, state_c)


def gru_derivative(saved: Tensors, gradients: Tensors) -> tuple[Tensors, Tensors]:
    """GRU derivative; blocks c of the input's part, z and r of both parts, c of the state's part."""
    h, z, r, c, state_c = saved
    (dh,) = gradients
    input_dc = dh * (1 - z) * (1 - c * c)
    state_dc = input_dc * r
    dz, dr = dh * (h - c) * z * (1 - z), state_dc * state_c * (1 - r)
    return (input_dc, dz, dr, state_dc), (dh * z,)


def lstm_step(of_input: tf.Tensor, of_state: tf.Tensor, states: Tensors) -> tuple[Tensors, Tensors]:
    """LSTM step (Hochreiter & Schmidhuber 1997) with a forget gate (Gers et al. 2000); gate order i, f, g, o in both parts."""
    h, before = states
    i, f, g, o = tf.split(of_input + of_state, 4)
    i, f, g, o = tf.sigmoid(i), tf.sigmoid(f), tf.tanh(g), tf.sigmoid(o)
    c = f * before + i * g
    squashed = tf.tanh(c)
    return (o * squashed, c), (h, before, i, f, g, o, squashed)


def lstm_derivative(saved: Tensors, gradients: Tensors) -> tuple[Tensors, Tensors]:
    """LSTM derivative; blocks i, f, g, o of both parts."""
    _, before, i, f, g, o, squashed = saved
    dh, dc = gradients
    dc += dh * o * (1 - squashed * squashed)
    di, df, dg = dc * g * i * (1 - i), dc * before * f * (1 - f), dc * i * (1 - g * g)
    return (di, df, dg, dh * squashed * o * (1 - o)), (tf.zeros_like(dh), dc * f)


GRU = Equations(gru_step, gru_derivative, saved=5)
LSTM = Equations(lstm_step, lstm_derivative, saved=7)


def recur(
    equations: Equations, x: Any, states: Sequence[tf.Tensor], kernel: Any, recurrent_kernel: Any, bias: Any, training: bool = True
) -> Tensors:
    """Run a cell over time.

    Args:
        equations: GRU or LSTM.
        x: inputs [B, T, E].
        states: before the first step, each [B, U].
        kernel: [E, G], its columns in the order of the input's part of the gates.
        recurrent_kernel: [U, G], its columns in the order of the state's part.
        bias: [1, G] for the input's part, or [2, G] with a second row for the state's part.
        training: whether gradients will be computed, for which every step is saved.

    Returns:
        h after each step [B, T, U], and the states after the last one, each [B, U].
    """
    if not training:
        inputs, before = _batch_last(x, states)
        outputs, after, _ = _run(equations, inputs, kernel, recurrent_kernel, bias, before, save=False)
        return _batch_first(outputs, after)

    @tf.custom_gradient
    def differentiable(x: Any, kernel: Any, recurrent_kernel: Any, bias: Any, *states: tf.Tensor) -> Any:
        inputs, before = _batch_last(x, states)
        outputs, after, saved = _run(equations, inputs, kernel, recurrent_kernel, bias, before, save=True)

        def gradient(d_outputs: tf.Tensor, *d_after: tf.Tensor) -> Tensors:
            d_outputs, d_after = tf.transpose(d_outputs, (1, 2, 0)), tuple(tf.transpose(d) for d in d_after)
            d_gates, d_before = _run_back(equations, saved, recurrent_kernel, d_outputs, d_after)
            d_gates, columns = _side_by_side(d_gates), kernel.shape[1]
            of_input, of_state = d_gates[:columns], d_gates[-columns:]  # [G, T * B]
            ones = tf.ones((tf.shape(d_gates)[1], 1), x.dtype)  # a product sums bfloat16 in float32
            d_bias = [of_input @ ones, of_state @ ones][: bias.shape[0]]
            d_inputs = tf.reshape(kernel @ of_input, tf.gather(tf.shape(inputs), (1, 0, 2)))  # [E, T, B]
            return (
                tf.transpose(d_inputs, (2, 1, 0)),
                tf.matmul(_side_by_side(inputs), of_input, transpose_b=True),
                tf.matmul(_side_by_side(saved[0].stack()), of_state, transpose_b=True),
                tf.transpose(tf.concat(d_bias, axis=1)),
                *(tf.cast(tf.transpose(d), x.dtype) for d in d_before),
            )

        return _batch_first(outputs, after), gradient

    return differentiable(x, kernel, recurrent_kernel, bias, *states)


def _batch_last(x: Any, states: Sequence[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """[B, T, E] and states [B, U] -> [T, E, B] and [U, B]."""
    return tf.transpose(x, (1, 2, 0)), [tf.transpose(s) for s in states]


def _batch_first(outputs: tf.Tensor, states: Tensors) -> Tensors:
    """[T, U, B] and states [U, B] -> [B, T, U] and [B, U], in the type of the outputs."""
    return tf.transpose(outputs, (2, 0, 1)), *(tf.cast(tf.transpose(s), outputs.dtype) for s in states)


def _run(
    equations: Equations, inputs: Any, kernel: Any, recurrent_kernel: Any, bias: Any, states: Sequence[tf.Tensor], save: bool
) -> tuple[tf.Tensor, Tensors, tuple[tf.TensorArray, ...]]:
    """Forward loop: h after each step [T, U, B], the states after the last, and the saved tensors if `save`."""
    time, units, dtype = tf.shape(inputs)[0], recurrent_kernel.shape[0], inputs.dtype
    kernel_rows, recurrent_rows = tf.transpose(kernel), tf.transpose(recurrent_kernel)  # [G, E], [G, U]
    biases = [tf.repeat(_float32(row)[:, None], tf.shape(inputs)[2], axis=1) for row in tf.unstack(bias)]  # [G, B]

    def step(t: tf.Tensor, states: Tensors, outputs: tf.TensorArray, saved: Any) -> tuple[Any, ...]:
        of_input = _float32(kernel_rows @ inputs[t]) + biases[0]
        of_state = _float32(recurrent_rows @ tf.cast(states[0], dtype))
        states, needed = equations.step(of_input, of_state + biases[1] if len(biases) > 1 else of_state, states)
        saved = tuple(array.write(t, tf.cast(value, dtype)) for array, value in zip(saved, needed, strict=save))
        return t + 1, states, outputs.write(t, tf.cast(states[0], dtype)), saved

    outputs, *saved = (_array(time, units, inputs) for _ in range(1 + equations.saved * save))
    start = 0, tuple(_float32(s) for s in states), outputs, tuple(saved)
    _, after, outputs, saved = tf.while_loop(lambda t, *_: t < time, step, start, maximum_iterations=time)
    return outputs.stack(), after, saved


def _run_back(
    equations: Equations, saved: tuple[tf.TensorArray, ...], recurrent_kernel: Any, d_outputs: Any, d_after: Tensors
) -> tuple[tf.Tensor, Tensors]:
    """Backward loop: the gradients of the gates [T, 4 * U, B], and of the states before the first step."""
    (units, columns), time = recurrent_kernel.shape, tf.shape(d_outputs)[0]

    def step(t: tf.Tensor, d_states: Tensors, d_gates: tf.TensorArray) -> tuple[Any, ...]:
        d_states = d_states[0] + _float32(d_outputs[t]), *d_states[1:]
        blocks, (dh, *others) = equations.derivative(tuple(_float32(array.read(t)) for array in saved), d_states)
        d = tf.cast(tf.concat(blocks, axis=0), d_outputs.dtype)
        return t - 1, (dh + _float32(recurrent_kernel @ d[-columns:]), *others), d_gates.write(t, d)

    end = time - 1, tuple(_float32(d) for d in d_after), _array(time, 4 * units, d_outputs)
    _, d_before, d_gates = tf.while_loop(lambda t, *_: t >= 0, step, end, maximum_iterations=time)
    return d_gates.stack(), d_before


def _array(time: tf.Tensor, rows: int, like: Any) -> tf.TensorArray:
    """An array for a tensor [rows, B] of every step, with the type and batch of `like` [T, ..., B]."""
    return tf.TensorArray(like.dtype, time, clear_after_read=False, element_shape=(rows, like.shape[2]))


def _float32(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(values, tf.float32)


def _side_by_side(steps: tf.Tensor) -> tf.Tensor:
    """[T, rows, B] -> [rows, T * B]."""
    return tf.reshape(tf.transpose(steps, (1, 0, 2)), (tf.shape(steps)[1], -1))


class FastGRU(keras.layers.GRU):
    """`keras.layers.GRU` that is faster on a CPU; same weights and configuration, and Keras' own loop elsewhere."""

    def inner_loop(self, sequences: tf.Tensor, initial_state: Any, mask: Any, training: bool = False) -> Any:
        if not _applies(self, mask) or not self.reset_after:
            return super().inner_loop(sequences, initial_state, mask, training)
        kernel, recurrent_kernel, bias = _weights(self.cell, sequences.dtype)
        kernel, of_input = (tf.roll(values, self.units, axis=-1) for values in (kernel, bias[0]))  # z, r, c -> c, z, r
        outputs, *states = recur(GRU, sequences, initial_state, kernel, recurrent_kernel, tf.stack([of_input, bias[1]]), training)
        return states[0], outputs, states


class FastLSTM(keras.layers.LSTM):
    """`keras.layers.LSTM` that is faster on a CPU; same weights and configuration, and Keras' own loop elsewhere."""

    def inner_loop(self, sequences: tf.Tensor, initial_state: Any, mask: Any, training: bool = False) -> Any:
        if not _applies(self, mask):
            return super().inner_loop(sequences, initial_state, mask, training)
        kernel, recurrent_kernel, bias = _weights(self.cell, sequences.dtype)
        outputs, *states = recur(LSTM, sequences, initial_state, kernel, recurrent_kernel, bias[None], training)
        return states[0], outputs, states


FAST_LAYERS = {"gru": FastGRU, "lstm": FastLSTM, "dropout": SharedDropout}


def _weights(cell: Any, dtype: tf.DType) -> Tensors:
    """The cell's current weights; a StatelessScope may have replaced them."""
    return tuple(tf.cast(weight.value, dtype) for weight in (cell.kernel, cell.recurrent_kernel, cell.bias))


def _applies(layer: Any, mask: Any) -> bool:
    """Whether the layer uses the equations above and cuDNN is not available."""
    cell = layer.cell
    default = cell.activation is keras.activations.tanh and cell.recurrent_activation is keras.activations.sigmoid and cell.use_bias
    plain = default and not (cell.dropout or cell.recurrent_dropout or layer.go_backwards or layer.unroll)
    cudnn = layer.use_cudnn and tf.config.list_logical_devices("GPU")
    return plain and mask is None and not cudnn
