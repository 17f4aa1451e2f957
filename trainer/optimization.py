"""One step of training: the loss of a batch, its gradients over all devices, clipped and applied."""

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
    """A learning rate that rises for some steps, and then stays, or falls along half a cosine to 0 (Loshchilov and Hutter 2017)."""

    def __init__(self, peak: float, warmup: int, steps: int, decay: str) -> None:
        self.peak, self.warmup, self.steps, self.decay = peak, warmup, steps, decay

    def __call__(self, step: Any) -> tf.Tensor:
        step = tf.cast(step, tf.float32)
        rate = self.peak * tf.minimum(1.0, (step + 1) / (self.warmup + 1))
        if self.decay == "cosine":
            done = tf.clip_by_value((step - self.warmup) / max(1, self.steps - self.warmup), 0, 1)
            rate *= 0.5 * (1 + tf.cos(math.pi * done))
        return rate


def schedule_of(config: Config, steps_per_epoch: int) -> Schedule:
    steps = config.epochs * steps_per_epoch
    return Schedule(config.learning_rate, min(config.warmup, steps // 10), steps, config.learning_rate_decay)


def build_optimizer(model: keras.Model, config: Config, schedule: Any) -> Any:
    """Adam, or AdamW (Loshchilov and Hutter 2019), with the averages of the weights and the loss scaling that are asked for."""
    averages = {"use_ema": bool(config.average), "ema_momentum": config.average or 0.99}
    if config.weight_decay:
        optimizer: Any = keras.optimizers.AdamW(schedule, weight_decay=config.weight_decay, **averages)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
    else:
        optimizer = keras.optimizers.Adam(schedule, **averages)
    optimizer._all_reduce_sum_gradients = list  # they come summed: Keras would send them across the devices once more
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
    """A compiled step that updates the weights.

    Args:
        model: from `build_model`.
        teachers: whose predictions it learns from, if there are any.
        optimizer: from `build_optimizer`.
        config: the training's.
        batch_size: B, over all devices.
        seeds: where dropped weights are drawn from.
        strategy: the devices.

    Returns:
        A function from (windows int32 [b, T + 1] and the state before them float32 [b, S + the teachers' S], both shared out among
        the replicas, and float32 [n] that each worker asks for) to (the mean nats of the batch's text, the state after, what all
        workers ask for).
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
            loss = total = tf.reduce_sum(nats) / predictions  # of the global batch, so that the replicas' gradients add up
            if probabilities is not None:
                soft = tf.nn.softmax_cross_entropy_with_logits(labels=probabilities, logits=outputs["logits"])
                total = (1 - config.teacher_weight) * loss + config.teacher_weight * tf.reduce_sum(soft) / predictions
            scaled = optimizer.scale_loss(total) if scales else total
        gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(scaled, variables)]
        replica: Any = tf.distribute.get_replica_context()
        gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        if config.clip_norm:  # of the sum: each replica's own would not add up to it
            limit = config.clip_norm * (optimizer.dynamic_scale if scales else 1.0)
            gradients, _ = tf.clip_by_global_norm(gradients, limit)
        optimizer.apply(gradients, variables)
        state = tf.concat([tf.cast(outputs["state"], tf.float32), taught], axis=1)
        sums = replica.all_reduce(tf.distribute.ReduceOp.SUM, [loss, tf.identity(asked)])  # a tensor of each replica's own
        return sums[0], state, sums[1]

    # Without XLA: it makes float32 twice as slow on some CPUs and bfloat16 on all, and keeps the cuDNN kernels away on a GPU.
    @tf.function
    def train_step(windows: Any, state: Any, asked: tf.Tensor) -> tuple[Any, Any, Any]:
        return strategy.run(replica_step, args=(windows, state, asked))

    def step(windows: Any, state: Any, asked: tf.Tensor) -> tuple[tf.Tensor, Any, tf.Tensor]:
        loss, state, asked = train_step(windows, state, asked)
        return strategy.experimental_local_results(loss)[0], state, strategy.experimental_local_results(asked)[0]

    return step
