"""A model as C source for a microcontroller: a header of sizes and names, and constants that the linker puts into flash.

Both are C99 and C++17. The model's bytes are those that TensorFlow Lite Micro takes; docs/microcontrollers.md shows the program.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..runtime.errors import CharedgeError, InvalidOption
from ..runtime.manifest import LogitTemperature
from ..runtime.model_file import ModelFile
from ..runtime.text import normalize

if TYPE_CHECKING:
    from .verification import Measurement

T = TypeVar("T")

PROFILE = "int8-static"
LARGEST_MODEL = 16 * 2**20
"""Maximum size in bytes. A model is read where it lies, so it must fit where a chip maps its flash: the RP2040 maps 16 MB, the
RP2350 as much for each of its two flash chips, and the largest flash of an ESP32-S3 module is commonly 16 MB."""
TOKEN_BYTES = 6  # `[UNK]` and the NUL behind it; a character of UTF-8 has at most 4
ID_BYTES = 4
COLUMNS = 20  # bytes of the model on a line: at most 80 characters
MARK = b"/* Written by charedge"

IDENTIFIER = re.compile("[A-Za-z][A-Za-z0-9_]*")  # names with an underscore in front are the compiler's
KEYWORDS = re.compile(
    "alignas|alignof|and|and_eq|asm|auto|bitand|bitor|bool|break|case|catch|char|char16_t|char32_t|char8_t|class|co_await|"
    "co_return|co_yield|compl|concept|const|const_cast|consteval|constexpr|constinit|continue|decltype|default|delete|do|"
    "double|dynamic_cast|else|enum|explicit|export|extern|false|float|for|friend|goto|if|inline|int|long|mutable|"
    "namespace|new|noexcept|not|not_eq|nullptr|operator|or|or_eq|private|protected|public|register|reinterpret_cast|"
    "requires|restrict|return|short|signed|sizeof|static|static_assert|static_cast|struct|switch|template|this|"
    "thread_local|throw|true|try|typedef|typeid|typename|typeof|typeof_unqual|union|unsigned|using|virtual|void|volatile|"
    "wchar_t|while|xor|xor_eq"
)
"""The keywords of C99 to C23 and C++17 to C++20."""


@dataclass(frozen=True)
class CArray:
    """A model that was written as C source, and what was measured; `dataclasses.asdict` gives the JSON of `charedge convert`."""

    header: str
    """Path of the header."""
    source: str
    """Path of the .c file with the constants."""
    quantization: str
    flash_bytes: int
    """Size of all constants: the model, the vocabulary, the start text and the probe."""
    arena_bytes: int | None
    """Size of the arena for TensorFlow Lite Micro, with a margin of 10 %; None if it is not installed."""
    verified: tuple[Measurement, ...]
    """Quality and speed on each interpreter that is installed here, TensorFlow Lite Micro included."""
    logit_temperature: LogitTemperature | None
    """The temperature that the logits were divided by, and what it was fitted on; None if they were not divided."""


def require_header_name(field: str, output: Path) -> None:
    """Check that a header has a name that C can use.

    Raises:
        InvalidOption: it does not end with `.h`, or what is before that is not a C identifier.
    """
    if output.suffix != ".h":
        raise InvalidOption(field, f"{output} must be the name of a header: end it with .h.")
    if not IDENTIFIER.fullmatch(output.stem):
        raise InvalidOption(
            field, f"{output} must be a C identifier before .h: letters, digits and underscores, starting with a letter."
        )
    if KEYWORDS.fullmatch(output.stem):
        raise InvalidOption(field, f"{output} cannot be used, {output.stem} is a keyword of C or C++: choose another name.")


def require_own(field: str, source: Path) -> None:
    """Check that the source beside a header may be replaced: it is not there, or charedge wrote it.

    Raises:
        CharedgeError: it is another program's source, or cannot be read.
    """
    try:
        with source.open("rb") as file:
            own = file.read(len(MARK)) == MARK
    except FileNotFoundError:
        return
    except OSError as error:
        raise CharedgeError(f"`{field}` {source} cannot be read ({error.strerror}): choose another name.") from None
    if not own:
        raise CharedgeError(f"`{field}` {source} would be replaced, and charedge did not write it: choose another name.")


def require_fits(output: Path, model_bytes: int) -> None:
    """Check that a microcontroller can map a model's bytes.

    Raises:
        CharedgeError: they are more than `LARGEST_MODEL`.
    """
    if model_bytes > LARGEST_MODEL:
        megabytes, most = model_bytes / 2**20, LARGEST_MODEL // 2**20
        raise CharedgeError(
            f"{output} was not written: the model takes {megabytes:.1f} MB of flash, and microcontrollers map at most {most} MB; "
            "train with fewer `units` or `layers`."
        )


def c_source(file: ModelFile, name: str) -> tuple[str, str]:
    """A header and the source that belongs to it.

    Args:
        file: a model of int8 weights; one that was not tried on TensorFlow Lite Micro has no arena and no operators.
        name: of the header without its `.h`; everything in it begins with this name.

    Returns:
        The text of NAME.h and of NAME.c.
    """
    return _header(file, name), _source(file, name)


def flash_bytes(file: ModelFile) -> int:
    """The size of the constants of `c_source`, without what a linker puts between them."""
    ids = len(_start(file)) + len(file.manifest.probe.token_ids)
    return len(file.flatbuffer) + TOKEN_BYTES * len(file.vocabulary) + ID_BYTES * ids


def _header(file: ModelFile, name: str) -> str:
    manifest, upper = file.manifest, name.upper()
    inputs = manifest.units if manifest.input_table_folded else max(manifest.units, manifest.embedding_dim)
    return f"""\
{MARK.decode()}: a {manifest.cell.upper()} of {manifest.layers} x {manifest.units} units for microcontrollers.
 *
 * Inputs:  0 token  int32   [1]
 *          1 state  float32 [1, {upper}_STATE_SIZE]; zeros before the first character
 * Outputs: 0 logits float32 [1, {upper}_VOCABULARY_SIZE], of the character that comes next
 *          1 state  float32 [1, {upper}_STATE_SIZE], for the next step
 */
#ifndef {upper}_H
#define {upper}_H

#include <stdint.h>

#define {upper}_NAME {_literal(manifest.name)}
#define {upper}_LICENSE {_literal(manifest.license)}

/* The SHA-256 of {name}_model, and its first digits: {name}.c of another model does not compile with this header. */
#define {upper}_SHA256 "{manifest.flatbuffer_sha256}"
#define {upper}_CHECK {_check(file)}

#define {upper}_MODEL_BYTES {len(file.flatbuffer)}
#define {upper}_VOCABULARY_SIZE {len(file.vocabulary)}
#define {upper}_STATE_SIZE {manifest.state_size}

/* The size of the scratch memory that charedge_step.h describes. */
#define {upper}_SCRATCH_BYTES {manifest.units + inputs}

{_for_tflite_micro(file, upper)}\
/* Text must be in this Unicode form. Characters outside the vocabulary: 1 leaves them out, 0 feeds token 0, `[UNK]`. */
#define {upper}_NORMALIZATION "{manifest.normalization}"
#define {upper}_SKIP_UNKNOWN {int(manifest.unknown == "skip")}

/* {name}_start is fed where there is no prompt. {name}_probe, fed from a state of zeros: the mean of -log(probability) over its
 * tokens but the first is PROBE_NATS, within PROBE_TOLERANCE, or the model does not work on this device. */
#define {upper}_START_LENGTH {len(_start(file))}
#define {upper}_PROBE_LENGTH {len(manifest.probe.token_ids)}
#define {upper}_PROBE_NATS {manifest.probe.nats_per_character!r}
#define {upper}_PROBE_TOLERANCE {manifest.probe.tolerance!r}

#ifdef __cplusplus
extern "C" {{
#endif

extern const unsigned char {name}_model[{upper}_MODEL_BYTES]; /* aligned to 16 */
extern const char {name}_vocabulary[{upper}_VOCABULARY_SIZE][{TOKEN_BYTES}]; /* UTF-8 strings; token 0 is never written */
extern const int32_t {name}_start[{upper}_START_LENGTH];
extern const int32_t {name}_probe[{upper}_PROBE_LENGTH];

#ifdef __cplusplus
}}
#endif

#endif
"""


def _for_tflite_micro(file: ModelFile, upper: str) -> str:
    """The part of the header that only TensorFlow Lite Micro needs, if the model was tried on it."""
    micro = file.manifest.microcontroller
    if micro is None:
        return ""
    methods = [_method(operator) for operator in micro.operators]
    operators = " \\\n".join(f"  X({method})" for method in methods)
    return f"""\
/* The size of the tensor arena: what the interpreter needed on the workstation, and 10 % more. Align the arena to 16. */
#define {upper}_ARENA_BYTES {micro.arena_bytes}

/* The methods of tflite::MicroMutableOpResolver<{upper}_OPERATOR_COUNT> to call. */
#define {upper}_OPERATOR_COUNT {len(methods)}
#define {upper}_OPERATORS(X) \\
{operators}

"""


def _source(file: ModelFile, name: str) -> str:
    upper = name.upper()
    return f"""\
{MARK.decode()} with {name}.h. */
#include "{name}.h"

#if {upper}_CHECK != {_check(file)}
#error "{name}.h and {name}.c are of different models: convert again"
#endif

#if defined(__cplusplus)
#define {upper}_ALIGNED alignas(16)
#elif defined(__GNUC__)
#define {upper}_ALIGNED __attribute__((aligned(16)))
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define {upper}_ALIGNED _Alignas(16)
#elif !defined({upper}_ALIGNED)
#error "define {upper}_ALIGNED as what aligns a variable to 16 bytes with this compiler"
#endif

{upper}_ALIGNED const unsigned char {name}_model[{upper}_MODEL_BYTES] = {{
{_lines(map(str, file.flatbuffer), COLUMNS)}
}};

const char {name}_vocabulary[{upper}_VOCABULARY_SIZE][{TOKEN_BYTES}] = {{
{_lines(map(_literal, file.vocabulary.tokens), 10)}
}};

const int32_t {name}_start[{upper}_START_LENGTH] = {{
{_lines(map(str, _start(file)), 16)}
}};

const int32_t {name}_probe[{upper}_PROBE_LENGTH] = {{
{_lines(map(str, file.manifest.probe.token_ids), 16)}
}};
"""


def _start(file: ModelFile) -> list[int]:
    """The ids of the text that is fed where there is no prompt."""
    return [int(i) for i in file.vocabulary.encode(normalize(file.manifest.start_text, file.manifest.normalization))]


def _check(file: ModelFile) -> str:
    return f"0x{file.manifest.flatbuffer_sha256[:8]}u"


def _method(operator: str) -> str:
    """The method of TFLM's resolver for an operator of TFLite's schema: FULLY_CONNECTED -> AddFullyConnected."""
    return "Add" + "".join(word.capitalize() for word in operator.split("_"))


def _literal(text: str) -> str:
    """A string literal of ASCII. Octal escapes end after three digits, whatever follows; `?` could be part of a trigraph."""
    plain = (chr(byte) if 0x20 <= byte < 0x7F and byte not in b'"\\?' else f"\\{byte:03o}" for byte in text.encode())
    return f'"{"".join(plain)}"'


def _lines(items: Iterable[str], columns: int) -> str:
    return "\n".join(",".join(part) + "," for part in _parts(items, columns))


def _parts(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part
