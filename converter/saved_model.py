"""Export of a run as a SavedModel: the one-step generator of TensorFlow's text generation tutorial.

It needs only TensorFlow:

    generator = tf.saved_model.load("bard")
    text, states = tf.constant(["ROMEO:", "JULIET: O"]), None
    for _ in range(500):
        text, states = generator.generate_one_step(text, states=states, temperature=0.8)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from ..runtime.errors import CharedgeError
from ..runtime.manifest import STATES_PER_LAYER, LogitTemperature
from ..runtime.progress import Progress, Report, no_progress
from ..runtime.scoring import nats_of
from ..runtime.vocabulary import UNKNOWN_ID, Vocabulary
from ..trainer.accelerators import hide_gpus
from ..trainer.model import EMBEDDING, LOGITS, RECURRENT, load_model, state_size
from ..trainer.run import Config, Run
from .folders import replacing
from .read_run import held_out_ids, start_text
from .temperature import apply_temperature

VERIFIED_CHARACTERS, VERIFIED_AT_ONCE = 1000, 100
LOGIT_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Exported:
    """A SavedModel that was written, and its measurements against the Keras model."""

    folder: str
    """Path of the folder."""
    characters: int
    """Number of characters of the run's held-out text that it was measured on, with the state carried."""
    nats_per_character: float
    """Loss, as in `charedge score`."""
    largest_logit_difference: float
    bytes: int
    """Size of all its files."""
    logit_temperature: LogitTemperature | None
    """The temperature that the logits were divided by, and what it was fitted on; None if they were not divided."""


def write_saved_model(
    run: Run, output: Path, fit: bool = False, temperature: float | None = None, progress: Progress = no_progress
) -> Exported:
    """Write a run's best weights as a SavedModel, in float32, and compare it with the Keras model.

    The functions of the loaded SavedModel are those of `OneStep`; its signatures are `serving_default` (`inputs`, `states`,
    `temperature` to `characters`, `states`) and `step` (`tokens`, `states` to `logits`, `states`).

    Args:
        run: the run folder.
        output: the folder to write, checked by `outputs.check_saved_model`; an existing SavedModel is replaced, in one step if
            the system can do that.
        fit: whether to divide the logits by the temperature that predicts the held-out text best.
        temperature: a temperature to divide them by without fitting, or None.
        progress: called with reports.

    Returns:
        The measurements.

    Raises:
        CharedgeError: the run is damaged; `output` cannot be written; or the SavedModel's logits differ from the Keras model's,
            and it was not put in place.
    """
    place, ids = output.resolve(), held_out_ids(run, VERIFIED_CHARACTERS)
    progress(Report("converting", message=f"converting {run.path} to a SavedModel"))
    hide_gpus()
    with _full_float32():
        model = load_model(run)
        logit_temperature = apply_temperature(model, run, fit, temperature, progress)
        generator = OneStep(model, run.config(), run.vocabulary(), start_text(run))
        signatures = {"serving_default": generator.serve, "step": generator.step}
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with replacing(place) as folder:
                tf.saved_model.save(generator, str(folder), signatures=signatures)
                exported = _measure(folder, output, model, ids, logit_temperature, progress)
                if not exported.largest_logit_difference <= LOGIT_TOLERANCE:  # nor NaN
                    raise CharedgeError(
                        f"{output} was not written: its logits differ by {exported.largest_logit_difference:g} from those of "
                        f"Keras, and {LOGIT_TOLERANCE:g} is allowed; convert again, with the TensorFlow that the run was trained "
                        "with."
                    )
        except (OSError, tf.errors.OpError) as error:
            raise CharedgeError(f"`output` {output} cannot be written ({_reason(error)}): choose another place.") from None
    return exported


@contextmanager
def _full_float32() -> Iterator[None]:
    """Turn off TensorFloat-32 in the block, with which a GPU would round the logits that are compared."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


class OneStep(tf.Module):
    """One step of generation: a text and the state before it -> the next character and the state after the text.

    Texts must be in the run's normalisation form, without a byte order mark, with line feeds as line ends: TensorFlow's graphs
    cannot convert them. Characters outside the vocabulary (and bytes that are not UTF-8) are left out, or read as `[UNK]` if the
    run's `unknown` is `unk`; for an empty row the start text is read.

    After `tf.saved_model.load` it has these functions:

    - `generate_one_step(inputs: string [B], states: float32 [B, S] or None, temperature: float32 [] = 1.0)` ->
      (characters: string [B], states: float32 [B, S]). Without states a new text starts. A row's state is the one after its own
      last character, even if other rows are longer. Characters are drawn from softmax(logits / temperature); at temperature 0
      the most likely one is taken; `[UNK]` is never drawn. Raises `tf.errors.InvalidArgumentError` for a temperature that is
      negative or not finite.
    - `step(tokens: int32 [B, T], states: float32 [B, S])` -> {"logits": float32 [B, T, V], "states": float32 [B, S]}.
    - `zero_states(batch: int32 [])` -> float32 [batch, S]: the states at the start of texts.
    - `vocabulary()` -> string [V], the characters by token, and `normalization()` -> string [], the run's form.
    """

    def __init__(self, model: keras.Model, config: Config, vocabulary: Vocabulary, start_text: str) -> None:
        """
        Args:
            model: from `trainer.model.load_model`; this object shares its variables.
            config: the configuration of the run.
            vocabulary: V tokens.
            start_text: one character.
        """
        super().__init__()
        size = state_size(config.cell, config.layers, config.units)
        texts, temperature = tf.TensorSpec([None], tf.string), tf.TensorSpec([], tf.float32)
        tokens, states = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, size], tf.float32)
        self.parameters = [weight.value for weight in model.weights]  # a SavedModel stores only variables that are attributes
        self.ids = _id_table(vocabulary)
        self._skips = config.unknown == "skip"
        self._start_id = int(vocabulary.encode(start_text)[0])
        self._advance, self._logits = _advance_of(model, config), _logits_of(model, config)
        self.zero_states = tf.function(lambda batch: tf.zeros([batch, size]), [tf.TensorSpec([], tf.int32)])
        self.vocabulary = tf.function(lambda: tf.constant(vocabulary.tokens), [])
        self.normalization = tf.function(lambda: tf.constant(config.normalization), [])
        self.generate_one_step = tf.function(self._generate_one_step)
        for given in (states, None):  # a SavedModel contains only traced functions
            self.generate_one_step.get_concrete_function(texts, given, temperature)
        self.serve = tf.function(self._serve, [texts, states, temperature])
        self.step = tf.function(self._step, [tokens, states])

    def _generate_one_step(
        self, inputs: tf.Tensor, states: tf.Tensor | None = None, temperature: tf.Tensor | float = 1.0
    ) -> tuple[tf.Tensor, tf.Tensor]:
        tokens, lengths = self._encode(inputs)
        before = self.zero_states(tf.shape(inputs)[0]) if states is None else states

        def read(states: tf.Tensor, column: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            tokens, place = column
            return tf.where(place < lengths[:, None], self._advance(states, tokens), states)

        columns = (tf.transpose(tokens), tf.range(tf.shape(tokens, tf.int64)[1]))
        after = tf.foldl(read, columns, initializer=before)
        drawn = _draw(self._logits(after), tf.convert_to_tensor(temperature, tf.float32))
        return tf.gather(self.vocabulary(), drawn), after

    def _serve(self, inputs: tf.Tensor, states: tf.Tensor, temperature: tf.Tensor) -> dict[str, tf.Tensor]:
        characters, states = self.generate_one_step(inputs, states, temperature)
        return {"characters": characters, "states": states}

    def _step(self, tokens: tf.Tensor, states: tf.Tensor) -> dict[str, tf.Tensor]:
        every = tf.scan(self._advance, tf.transpose(tokens), initializer=states)  # [T, B, S]
        return {"logits": tf.transpose(self._logits(every), [1, 0, 2]), "states": every[-1]}

    def _encode(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The tokens of texts, int64 [B, T], and the number of each row's tokens, int64 [B], at least 1."""
        ids = self.ids.lookup(tf.strings.unicode_split(texts, "UTF-8"))
        if self._skips:
            ids = tf.ragged.boolean_mask(ids, ids != UNKNOWN_ID)
        lengths = tf.maximum(ids.row_lengths(), 1)
        padded = tf.pad(ids.to_tensor(self._start_id), [[0, 0], [0, 1]], constant_values=self._start_id)
        return padded[:, : tf.reduce_max(lengths)], lengths


def _id_table(vocabulary: Vocabulary) -> tf.lookup.StaticHashTable:
    characters = tf.constant(vocabulary.tokens[1:], tf.string)
    ids = tf.range(1, len(vocabulary), dtype=tf.int64)
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(characters, ids), default_value=UNKNOWN_ID)


def _advance_of(model: keras.Model, config: Config) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """A function for one step of the cells: (states [B, S], tokens [B]) -> states [B, S]."""
    embedding = model.get_layer(EMBEDDING)
    cells = [model.get_layer(RECURRENT.format(i)).cell for i in range(config.layers)]
    per_layer = STATES_PER_LAYER[config.cell]

    def advance(states: tf.Tensor, tokens: tf.Tensor) -> tf.Tensor:
        parts = tf.split(states, per_layer * config.layers, axis=1)  # each [B, units]
        x, after = embedding(tokens), []
        for i, cell in enumerate(cells):
            x, now = cell(x, parts[i * per_layer : (i + 1) * per_layer])  # x [B, units]
            after += now
        return tf.concat(after, axis=1)

    return advance


def _logits_of(model: keras.Model, config: Config) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from states to logits: [..., S] -> [..., V]. The last layer's output is the first part of its state."""
    dense, per_layer = model.get_layer(LOGITS), STATES_PER_LAYER[config.cell]
    return lambda states: dense(tf.split(states, per_layer * config.layers, axis=-1)[-per_layer])


def _draw(logits: tf.Tensor, temperature: tf.Tensor) -> tf.Tensor:
    """Draw the next token of each row, [B, V] -> int64 [B].

    The argmax over `logits + temperature * Gumbel noise` has exactly the distribution softmax(logits / temperature), also for
    temperature 0. The raw operation does not store a seed in the graph, from which every process that loads it would draw the
    same numbers.
    """
    fine = tf.math.is_finite(temperature) & (temperature >= 0)
    tf.debugging.Assert(fine, ["temperature must be a number from 0 (greedy) up:", temperature])
    uniform = tf.raw_ops.RandomUniform(shape=tf.shape(logits), dtype=tf.float64)
    noise = -tf.math.log(-tf.math.log(tf.maximum(uniform, np.finfo(np.float64).tiny)))
    mask = tf.one_hot(UNKNOWN_ID, logits.shape[-1], on_value=-np.inf, off_value=0.0)
    return tf.argmax(logits + mask + temperature * tf.cast(noise, tf.float32), axis=1)


def _measure(
    folder: Path, output: Path, model: keras.Model, ids: np.ndarray, temperature: LogitTemperature | None, progress: Progress
) -> Exported:
    """Load a SavedModel, and compare its logits with the Keras model's.

    Args:
        folder: the folder of the SavedModel.
        output: the folder that it will be moved to.
        model: the Keras model.
        ids: int32 [n].
        temperature: the temperature that the model's logits were divided by, if they were.
        progress: called with reports on the characters compared.
    """
    progress(Report("verifying", 0, len(ids), "characters"))
    loaded = tf.saved_model.load(str(folder))
    states, parts = loaded.zero_states(1), []
    expected = tf.function(model)({"tokens": ids[None], "state": states})["logits"][0].numpy()  # [n, V]
    for start in range(0, len(ids), VERIFIED_AT_ONCE):
        outputs = loaded.step(ids[None, start : start + VERIFIED_AT_ONCE], states)
        states = outputs["states"]
        parts.append(outputs["logits"][0].numpy())
        progress(Report("verifying", min(start + VERIFIED_AT_ONCE, len(ids)), len(ids), "characters"))
    logits = np.concatenate(parts)  # [n, V]
    return Exported(
        folder=str(output),
        characters=len(ids),
        nats_per_character=float(nats_of(logits[:-1], ids[1:]).mean()),
        largest_logit_difference=float(np.abs(logits - expected).max()),
        bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        logit_temperature=temperature,
    )


def _reason(error: Exception) -> str:
    """The system's message in an error, without TensorFlow's node names as in `{{node}} path; File too large [Op:SaveV2]`."""
    message = str(getattr(error, "strerror", None) or error).split("\n")[0]
    return message.rpartition("; ")[2].partition(" [Op:")[0]
