// Writes text on a microcontroller, by TensorFlow Lite Micro. Beside it: bard.h and bard.c, from
// `charedge convert RUN --format c-array --output bard.h`.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "bard.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {

using Resolver = tflite::MicroMutableOpResolver<BARD_OPERATOR_COUNT>;

alignas(16) uint8_t arena[BARD_ARENA_BYTES];
float state[BARD_STATE_SIZE];  // the interpreter reuses the arena during a step, so the state is kept outside it
uint32_t random_state = 1;     // set it from the chip's random number generator, to a number that is not 0

bool register_operators(Resolver& resolver) {
#define REGISTER(method) if (resolver.method() != kTfLiteOk) return false;
  BARD_OPERATORS(REGISTER)
#undef REGISTER
  return true;
}

void begin() { memset(state, 0, sizeof state); }

// One character in, the logits of the next one out; nullptr if the interpreter fails.
const float* step(tflite::MicroInterpreter& interpreter, int32_t token) {
  interpreter.input(0)->data.i32[0] = token;
  memcpy(interpreter.input(1)->data.f, state, sizeof state);
  if (interpreter.Invoke() != kTfLiteOk) return nullptr;
  memcpy(state, interpreter.output(1)->data.f, sizeof state);
  return interpreter.output(0)->data.f;
}

float largest(const float* logits) {
  float most = logits[0];
  for (int i = 1; i < BARD_VOCABULARY_SIZE; ++i) most = fmaxf(most, logits[i]);
  return most;
}

// Whether the model behaves here as it did on the workstation.
bool probe_passes(tflite::MicroInterpreter& interpreter) {
  begin();
  float nats = 0;
  for (int k = 0; k + 1 < BARD_PROBE_LENGTH; ++k) {
    const float* logits = step(interpreter, bard_probe[k]);
    if (logits == nullptr) return false;
    float most = largest(logits), sum = 0;
    for (int i = 0; i < BARD_VOCABULARY_SIZE; ++i) sum += expf(logits[i] - most);
    nats += most + logf(sum) - logits[bard_probe[k + 1]];
  }
  float difference = nats / (BARD_PROBE_LENGTH - 1) - static_cast<float>(BARD_PROBE_NATS);
  return fabsf(difference) <= static_cast<float>(BARD_PROBE_TOLERANCE);  // false for NaN
}

float random_number() {  // from 0 to 1, by xorshift32
  random_state ^= random_state << 13;
  random_state ^= random_state >> 17;
  random_state ^= random_state << 5;
  return static_cast<float>(random_state >> 8) / 16777216.0f;
}

// A token from softmax(logits / temperature), at temperature 0 the most likely one; never token 0, [UNK].
int32_t draw(const float* logits, float temperature) {
  int32_t best = 1;
  for (int i = 2; i < BARD_VOCABULARY_SIZE; ++i) {
    if (logits[i] > logits[best]) best = i;
  }
  if (temperature <= 0) return best;
  const float most = logits[best];
  float sum = 0;
  for (int i = 1; i < BARD_VOCABULARY_SIZE; ++i) sum += expf((logits[i] - most) / temperature);
  float rest = random_number() * sum;
  for (int i = 1; i < BARD_VOCABULARY_SIZE; ++i) {
    rest -= expf((logits[i] - most) / temperature);
    if (rest < 0) return i;
  }
  return best;
}

// The token that a UTF-8 text begins with, 0 if it is not in the vocabulary, and how many bytes it takes.
int32_t token_of(const char* text, size_t* bytes) {
  for (int i = 1; i < BARD_VOCABULARY_SIZE; ++i) {
    *bytes = strlen(bard_vocabulary[i]);
    if (*bytes > 0 && strncmp(text, bard_vocabulary[i], *bytes) == 0) return i;
  }
  for (*bytes = 1; (text[*bytes] & 0xC0) == 0x80; ++*bytes) {
  }
  return 0;
}

// The logits after a prompt, or after the start text if nothing of the prompt is in the vocabulary.
const float* feed(tflite::MicroInterpreter& interpreter, const char* prompt) {
  const float* logits = nullptr;
  size_t bytes;
  for (begin(); *prompt != '\0'; prompt += bytes) {
    const int32_t token = token_of(prompt, &bytes);
    if (token == 0 && BARD_SKIP_UNKNOWN) continue;
    if ((logits = step(interpreter, token)) == nullptr) return nullptr;
  }
  for (int i = 0; logits == nullptr && i < BARD_START_LENGTH; ++i) logits = step(interpreter, bard_start[i]);
  return logits;
}

bool write_text(tflite::MicroInterpreter& interpreter, const char* prompt, int length, float temperature) {
  const float* logits = feed(interpreter, prompt);
  for (int i = 0; i < length && logits != nullptr; ++i) {
    const int32_t token = draw(logits, temperature);
    fputs(bard_vocabulary[token], stdout);
    fflush(stdout);
    logits = step(interpreter, token);
  }
  return logits != nullptr;
}

}  // namespace

int main() {  // with ESP-IDF: extern "C" void app_main(), and `return;`
  static Resolver resolver;
  if (!register_operators(resolver)) return 1;
  static tflite::MicroInterpreter interpreter(tflite::GetModel(bard_model), resolver, arena, sizeof arena);
  if (interpreter.AllocateTensors() != kTfLiteOk) {
    puts("The arena is too small for the kernels of this build: enlarge it.");
    return 1;
  }
  if (!probe_passes(interpreter)) {
    puts("The probe failed: the model does not behave as it did on the workstation.");
    return 1;
  }
  fputs("ROMEO:", stdout);
  return write_text(interpreter, "ROMEO:", 500, 0.8f) ? 0 : 1;
}
