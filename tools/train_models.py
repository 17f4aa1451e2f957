"""Train the models of the README by the clean protocol: no figure is measured on text that anything was chosen on.

choose   trains each candidate recipe on the first 85 % of the text; recipe and temperature are chosen on 85 to 90 %.
final    with both frozen, trains on the first 90 % once for each seed, keeps the last epoch, and reads the last 10 % with the
         model file. The models of the package are those of the first seed.

python tools/train_models.py                          base, shakespeare, shakespeare-tiny and wide: hours
python tools/train_models.py quijote --corpus quijote.txt
python tools/train_models.py shakespeare --only choose --set dropout=0.3 --set epochs=8
python tools/train_models.py shakespeare --only final --seeds 2
python tools/train_models.py shakespeare-tiny --logit-temperature 1     leaves choose out: nothing is compared, nothing fitted

Every training, conversion and measurement is kept in build/; after Ctrl-C the same line continues. Each is a charedge command,
which is printed. The figures are in build/figures/NAME-choose.json and NAME.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from charedge.converter.arguments import MAX_TEMPERATURE
from charedge.runtime.bundled import FOLDER, NAMES
from charedge.runtime.files import write_atomically
from charedge.trainer.config import OPTIONS, settings
from charedge.trainer.corpus import find_sources

import charedge
from charedge.console import say

WINDOWS = Path(__file__).parents[1] / "benchmarks" / "windows.py"
TRAINED, KNOWN = 0.85, 0.9
"""Shares of the text: choose trains up to the first and chooses on the text from there to the second, up to which final trains."""
PHASES = ("choose", "final")
FIXED = ("keep", "seed", "validation_split")
"""Options of `charedge train` that the phases set."""

SHAKESPEARE = (
    "Writes lines that look like those of Shakespeare's plays: speakers, verse, words, and hardly any sense. It knows the 65 "
    "characters of its text, no accents and no digit but 3; it has read a million characters and can repeat some of them."
)
QUIJOTE = "Writes Spanish in the manner of Don Quijote, and hardly any sense; it knows the characters of its text alone."


class Model(NamedTuple):
    """A model to train."""

    corpus: str
    recipes: Sequence[Mapping[str, Any]]
    """The candidates: options of `charedge train`. docs/training-experiments.md has the search that led to them."""
    seeds: int
    """Number of final trainings."""
    notes: str
    quantization: str = "int8"


MODELS = {
    "base": Model("shakespeare", [{"preset": "base"}], 3, SHAKESPEARE),
    "shakespeare": Model("shakespeare", [{"preset": "large"}], 2, SHAKESPEARE),
    "shakespeare-tiny": Model("shakespeare", [{"preset": "small", "units": 172, "epochs": 32}], 2, SHAKESPEARE),
    "wide": Model("shakespeare", [{"preset": "wide"}], 2, SHAKESPEARE, "int4"),
    "quijote": Model("quijote.txt", [{"preset": "base"}], 2, QUIJOTE),
}


def carried(file: Path, text: str) -> float:
    """Nats per character with the state carried from the first character to the last."""
    return charedge.load(file).score(text).nats_per_character


def in_windows(file: Path, text: str) -> float:
    """Nats per character in nanoGPT's windows of 256, each from a zero state."""
    read = file.with_name("last.txt")
    read.write_text(text, encoding="utf-8")
    return float(subprocess.run([sys.executable, WINDOWS, file, read], stdout=subprocess.PIPE, check=True).stdout)


def adapted(file: Path, text: str) -> float:
    """The same as `carried`, while the model adapts to what it reads."""
    return charedge.load(file).score(text, adapt=True).nats_per_character


MEASURES: dict[str, Callable[[Path, str], float]] = {"carried": carried, "windows of 256": in_windows, "adapted": adapted}
"""What a final file is measured by, on the last 10 % of the text."""


class Trainer:
    """The trainings of one model; its folder has one folder for each of them."""

    def __init__(self, name: str, corpus: str, folder: Path) -> None:
        self.name, self.corpus, self.model, self.folder = name, corpus, MODELS[name], folder / "models" / name
        self.figures = folder / "figures"
        self.text = "".join(chunk for source in find_sources([corpus]) for chunk in source.chunks("NFC"))
        self.known = int(len(self.text) * KNOWN)
        self.folder.mkdir(parents=True, exist_ok=True)

    def choose(self, recipe: Mapping[str, Any]) -> dict[str, Any]:
        """Train a recipe on the first part of the text, and fit its temperature on the second."""
        known, folder = self.folder / "first-90-percent.txt", self._folder("choose", recipe)

        def measure() -> dict[str, Any]:
            write_atomically(known, self.text[: self.known].encode())
            self._train(str(known), folder, recipe, validation_split=round(1 - TRAINED / KNOWN, 6), seed=1)
            file = folder / f"{self.name}.tflite"
            temperature = self._convert(folder, file, "--fit-temperature")["logit_temperature"]
            return {
                "recipe": recipe,
                "logit_temperature": temperature["value"],
                **temperature["fit"],
                "bytes": file.stat().st_size,
            }

        return self._once(folder, recipe, measure)

    def require_chosen(self, recipes: Sequence[Mapping[str, Any]]) -> None:
        """
        Raises:
            CharedgeError: a recipe was not trained by `choose`.
        """
        for recipe in recipes:
            if not (self._folder("choose", recipe) / "result.json").exists():
                raise charedge.CharedgeError(f"{_label(recipe)} has no temperature yet: give --only choose first, or no --only.")

    def final(self, recipe: Mapping[str, Any], temperature: float, seed: int) -> dict[str, Any]:
        """Train a frozen recipe on all but the last 10 % of the text, and read these with the file."""
        folder = self._folder("final", recipe) / f"seed-{seed}"
        file = folder / f"{self.name}.tflite"

        def convert() -> dict[str, Any]:
            self._train(self.corpus, folder, recipe, validation_split=round(1 - KNOWN, 6), seed=seed)
            self._convert(folder, file, "--logit-temperature", temperature)
            return {"seed": seed, "logit_temperature": temperature, "bytes": file.stat().st_size}

        result = self._once(folder, {**recipe, "logit_temperature": temperature}, convert)
        for name, measure in MEASURES.items():
            if name not in result:
                say(f"reading the last {len(self.text) - self.known:,} characters with {file}: {name}")
                result[name] = measure(file, self.text[self.known :])
                _write(folder / "result.json", result)
        return result

    def write_candidates(self) -> None:
        """Print and write all recipes that were tried, the best first."""
        found = [json.loads(path.read_text()) for path in sorted(self.folder.glob("choose/*/result.json"))]
        found.sort(key=lambda candidate: candidate["cross_validated_nats_per_character"])
        _write(self.figures / f"{self.name}-choose.json", {"name": self.name, "candidates": found})
        part = f"{TRAINED:.0%} to {KNOWN:.0%}".replace("%", " %")
        print(f"{self.name}: nats per character over {part} of the text, each half with the temperature fitted on the other half")
        for candidate in found:
            losses = candidate["cross_validated_nats_per_character"], candidate["undivided_nats_per_character"]
            temperature, label = candidate["logit_temperature"], _label(candidate["recipe"])
            print("  {:.4f} (undivided {:.4f})  temperature {:.3f}  {}".format(*losses, temperature, label))

    def write_figures(self, candidate: Mapping[str, Any]) -> None:
        """Print and write the final figures of a recipe: of each seed, their mean, and their spread (largest less smallest)."""
        paths = sorted(self._folder("final", candidate["recipe"]).glob("seed-*/result.json"))
        seeds = sorted((json.loads(path.read_text()) for path in paths), key=lambda result: result["seed"])
        values = {name: [result[name] for result in seeds if name in result] for name in MEASURES}
        summary = {
            "name": self.name,
            "recipe": candidate["recipe"],
            "logit_temperature": candidate["logit_temperature"],
            "quantization": self.model.quantization,
            "bytes": seeds[0]["bytes"],
            "trained_on_characters": self.known,
            "measured_on_characters": len(self.text) - self.known,
            "seeds": seeds,
            "mean": {name: sum(losses) / len(losses) for name, losses in values.items()},
            "spread": {name: max(losses) - min(losses) for name, losses in values.items()},
        }
        _write(self.figures / f"{self.name}.json", summary)
        print(
            f"{self.name}: {summary['bytes']:,} bytes, temperature {summary['logit_temperature']:.3f}, "
            f"{_label(candidate['recipe'])}; nats per character over the last {summary['measured_on_characters']:,} characters"
        )
        for name, losses in values.items():
            each = "  ".join(f"{loss:.4f}" for loss in losses)
            print(f"  {name:<15} mean {summary['mean'][name]:.4f}  spread {summary['spread'][name]:.4f}  seeds {each}")

    def install(self, recipe: Mapping[str, Any]) -> None:
        """Copy the file of the first seed into the package: no figure chooses among the seeds.

        Raises:
            CharedgeError: that seed was not trained.
        """
        file = self._folder("final", recipe) / "seed-1" / f"{self.name}.tflite"
        if not file.exists():
            raise charedge.CharedgeError(f"{file} is missing: --install needs seed 1 among --seeds.")
        shutil.copyfile(file, FOLDER / file.name)

    def _folder(self, phase: str, recipe: Mapping[str, Any]) -> Path:
        return self.folder / phase / re.sub(r"[^\w.=-]+", "-", _label(recipe))[:200]

    def _once(self, folder: Path, recipe: Mapping[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The result of a training that was made before; otherwise make it.

        Raises:
            CharedgeError: the one that was made before has another text or other options, as a preset that has changed since.
        """
        path, made = folder / "result.json", {**self._settings(recipe), "sha256": hashlib.sha256(self.text.encode()).hexdigest()}
        if not path.exists():
            _write(path, {**make(), "made_from": made})
        result = json.loads(path.read_text())
        changed = [name for name, value in result["made_from"].items() if made.get(name, value) != value]
        if changed:
            raise charedge.CharedgeError(f"{folder} has another {', '.join(changed)}: delete it, or give another --build.")
        return result

    def _settings(self, recipe: Mapping[str, Any]) -> dict[str, Any]:
        options = {name: value for name, value in recipe.items() if name in OPTIONS}
        return {**recipe, **settings(recipe.get("preset", "base"), {k: v for k, v in options.items() if k != "preset"})}

    def _train(self, corpus: str, folder: Path, recipe: Mapping[str, Any], **options: Any) -> None:
        run = folder / "run"
        if any((run / "checkpoints").glob("*")):
            print(command("train", "--resume", "--output", run))
            return
        given = {**recipe, "keep": "last", **options}
        pairs = [(f"--{name.replace('_', '-')}", value) for name, value in given.items()]
        print(command("train", corpus, "--output", run, "--overwrite", *(part for pair in pairs for part in pair)))

    def _convert(self, folder: Path, file: Path, *options: Any) -> dict[str, Any]:
        texts = ("--name", self.name, "--author", "charedge", "--license", "Apache-2.0", "--notes", self.model.notes)
        options = ("--quantization", self.model.quantization, *options)
        return json.loads(command("convert", folder / "run", "--output", file, "--json", *options, *texts))


def command(*arguments: Any) -> str:
    """Run a charedge command in a process of its own, and return what it prints. Ctrl-C reaches it, too: it saves and exits."""
    words = [str(argument) for argument in arguments]
    say(f"charedge {shlex.join(words)}")
    before = signal.signal(signal.SIGINT, lambda *_: None)  # wait for it; a command does not inherit this function
    try:
        done = subprocess.run([sys.executable, "-m", "charedge", *words], stdout=subprocess.PIPE, check=False, encoding="utf-8")
    finally:
        signal.signal(signal.SIGINT, before)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout.strip()


def _write(path: Path, values: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(values, indent=2) + "\n").encode())


def _label(recipe: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in recipe.items())


def _changes(entries: Sequence[str]) -> Iterator[tuple[str, str | int | float]]:
    """`dropout=0.3` -> ("dropout", 0.3).

    Raises:
        ValueError: an entry has no equals sign, or names no option of a training, or one of `FIXED`.
    """
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not equals or name not in OPTIONS:
            raise ValueError(f"--set {entry} must be NAME=VALUE, an option of `charedge train` with underscores.")
        if name in FIXED:
            raise ValueError(f"--set {name} is the protocol's: leave it out.")
        with suppress(ValueError):  # what is left as text is refused with the other values that an option does not have
            value = OPTIONS[name].values.kind(value)
        yield name, value


def main(arguments: Sequence[str] | None = None) -> None:
    lines = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(
        description=lines[0], epilog="\n".join(lines[2:]), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = [name for name in MODELS if name != "quijote"]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MODELS)}; by default {', '.join(default)}")
    parser.add_argument("--corpus", help="the text; by default that of the model")
    parser.add_argument("--build", type=Path, default=Path("build"), help="folder of trainings and figures; by default build")
    parser.add_argument("--only", choices=PHASES, help="run one of the two phases; by default both")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="SEED", help="seeds of the final trainings; by default 1 to 2 or 3")
    parser.add_argument("--logit-temperature", type=float, metavar="T", help="of the final files, in place of one that choose fits")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change an option of the recipes")
    parser.add_argument("--install", action="store_true", help="copy the models of the package into it; by default they are not")
    options = parser.parse_args(arguments)
    if options.install and options.set:
        parser.error("--install takes the recipes as they are: leave out --set")
    if options.logit_temperature is not None and options.only == "choose":
        parser.error("--logit-temperature leaves choose out: give one of the two")
    if options.logit_temperature is not None and not 1 / MAX_TEMPERATURE <= options.logit_temperature <= MAX_TEMPERATURE:
        parser.error(f"--logit-temperature must be from {1 / MAX_TEMPERATURE:g} to {MAX_TEMPERATURE:g}")
    if options.only == "choose" and (options.install or options.seeds):
        parser.error("--install and --seeds are for the final trainings: leave out --only choose")
    if options.install and options.seeds and 1 not in options.seeds:
        parser.error("--install takes the file of seed 1: give it with --seeds")
    unknown = [name for name in options.names if name not in MODELS]
    if unknown:
        parser.error(f"{unknown[0]} is unknown: choose one of {', '.join(MODELS)}")
    try:
        changes = dict(_changes(options.set))
        for name in options.names or default:
            make(name, changes, options)
    except (charedge.CharedgeError, ValueError) as error:
        sys.exit(str(error))


def make(name: str, changes: Mapping[str, Any], options: argparse.Namespace) -> None:
    """Run the phases for one model."""
    trainer = Trainer(name, options.corpus or MODELS[name].corpus, options.build)
    recipes = [{**recipe, **changes} for recipe in MODELS[name].recipes]
    if options.logit_temperature is not None:
        best: dict[str, Any] = {"recipe": recipes[0], "logit_temperature": options.logit_temperature}
        make_final(trainer, best, name, options)
        return
    if options.only == "final":
        trainer.require_chosen(recipes)
    candidates = [trainer.choose(recipe) for recipe in recipes]
    trainer.write_candidates()
    if options.only == "choose":
        return
    make_final(trainer, min(candidates, key=lambda candidate: candidate["cross_validated_nats_per_character"]), name, options)


def make_final(trainer: Trainer, best: Mapping[str, Any], name: str, options: argparse.Namespace) -> None:
    """Train a recipe once for each seed, and write the figures."""
    for seed in options.seeds or range(1, MODELS[name].seeds + 1):
        trainer.final(best["recipe"], best["logit_temperature"], seed)
    trainer.write_figures(best)
    if options.install and name in NAMES:
        trainer.install(best["recipe"])


if __name__ == "__main__":
    main()
