"""Optimiser and training step: the loss of a batch, its gradients summed over all devices, clipped and applied."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from .config import Config
from .model import state_size
from .teachers import Teachers
from .weight_noise import forward

TrainStep = Callable[[Any, Any, tf.Tensor], tuple[tf.Tensor, Any, tf.Tensor]]


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate with a linear warm-up, then constant or with cosine decay to 0 (Loshchilov and Hutter 2017)."""

    def __init__(self, peak: float, warmup: int, steps: int, decay: str) -> None:
        """
        Args:
            peak: highest learning rate.
            warmup: warm-up steps.
            steps: steps of the whole training.
            decay: `cosine` or `none`.
        """
        self.peak, self.warmup, self.steps, self.decay = peak, warmup, steps, decay

    def __call__(self, step: Any) -> tf.Tensor:
        step = tf.cast(step, tf.float32)
        rate = self.peak * tf.minimum(1.0, (step + 1) / (self.warmup + 1))
        if self.decay == "cosine":
            done = tf.clip_by_value((step - self.warmup) / max(1, self.steps - self.warmup), 0, 1)
            rate *= 0.5 * (1 + tf.cos(math.pi * done))
        return rate


def schedule_of(config: Config, steps_per_epoch: int) -> Schedule:
    """The learning-rate schedule of a configuration; the warm-up is a tenth of all steps at most.

    Args:
        config: the training's.
        steps_per_epoch: batches in an epoch.
    """
    steps = config.epochs * steps_per_epoch
    return Schedule(config.learning_rate, min(config.warmup, steps // 10), steps, config.learning_rate_decay)


def build_optimizer(model: keras.Model, config: Config, schedule: Any) -> Any:
    """Build Adam or AdamW (Loshchilov and Hutter 2019), with averages of the weights and loss scaling if configured.

    Args:
        model: from `build_model`.
        config: the training's.
        schedule: from `schedule_of`.
    """
    averages = {"use_ema": bool(config.average), "ema_momentum": config.average or 0.99}
    if config.weight_decay:
        optimizer: Any = keras.optimizers.AdamW(schedule, weight_decay=config.weight_decay, **averages)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
    else:
        optimizer = keras.optimizers.Adam(schedule, **averages)
    optimizer._all_reduce_sum_gradients = list  # they are already summed; Keras would sum them over the devices again
    if config.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    return optimizer


def compile_train_step(
    model: keras.Model,
    teachers: Teachers,
    optimizer: Any,
    config: Config,
    batch_size: int,
    seeds: keras.random.SeedGenerator,
    strategy: tf.distribute.Strategy,
) -> TrainStep:
    """Compile a training step, which updates the weights.

    Args:
        model: from `build_model`.
        teachers: the teachers to distil from; may be empty.
        optimizer: from `build_optimizer`.
        config: the training's.
        batch_size: B, over all devices.
        seeds: random state of the weight drop.
        strategy: from `choose_strategy`.

    Returns:
        A function (windows int32 [B, T + 1], state float32 [B, S + the teachers' S], requests float32 [n]) -> (mean nats per
        character, state after, requests summed over the workers). Windows and state are shared among the replicas by `deal`;
        each worker passes its own requests.
    """
    variables = model.trainable_variables
    predictions = batch_size * config.sequence_length
    sizes = [state_size(config.cell, config.layers, config.units), teachers.size]
    scales = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)

    def replica_step(windows: tf.Tensor, state: tf.Tensor, asked: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        tokens, targets = windows[:, :-1], windows[:, 1:]
        if config.batching == "shuffled":
            state = tf.zeros((tf.shape(windows)[0], sum(sizes)))
        state, taught = tf.split(state, sizes, axis=1)
        probabilities, taught = teachers.predict(tokens, taught) if teachers.size else (None, taught)
        with tf.GradientTape() as tape:
            outputs = forward(model, {"tokens": tokens, "state": state}, config, seeds)
            nats = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=outputs["logits"])
            loss = total = tf.reduce_sum(nats) / predictions  # divided by the global batch, so that the replicas' gradients add up
            if probabilities is not None:
                soft = tf.nn.softmax_cross_entropy_with_logits(labels=probabilities, logits=outputs["logits"])
                total = (1 - config.teacher_weight) * loss + config.teacher_weight * tf.reduce_sum(soft) / predictions
            scaled = optimizer.scale_loss(total) if scales else total
        gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(scaled, variables)]
        replica: Any = tf.distribute.get_replica_context()
        gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        if config.clip_norm:  # after the sum: the norms of the replicas do not add up
            limit = config.clip_norm * (optimizer.dynamic_scale if scales else 1.0)
            gradients, _ = tf.clip_by_global_norm(gradients, limit)
        optimizer.apply(gradients, variables)
        state = tf.concat([tf.cast(outputs["state"], tf.float32), taught], axis=1)
        sums = replica.all_reduce(tf.distribute.ReduceOp.SUM, [loss, tf.identity(asked)])  # a separate tensor on each replica
        return sums[0], state, sums[1]

    # No XLA: with it float32 is twice as slow on some CPUs and bfloat16 on all, and a GPU does not use the cuDNN kernels.
    # No AutoGraph, here and in the reading functions: no `if` or `for` depends on a tensor, and rewriting the code takes a second.
    @tf.function(autograph=False)
    def train_step(windows: Any, state: Any, asked: tf.Tensor) -> tuple[Any, Any, Any]:
        return strategy.run(replica_step, args=(windows, state, asked))

    def step(windows: Any, state: Any, asked: tf.Tensor) -> tuple[tf.Tensor, Any, tf.Tensor]:
        loss, state, asked = train_step(windows, state, asked)
        return strategy.experimental_local_results(loss)[0], state, strategy.experimental_local_results(asked)[0]

    return step
