/* Writes text with the model in @name@.h: compile it with @name@.c and charedge_step.c, as C99 or C++17. */
#include "@name@.h"
#include "charedge_step.h"

#include <stdio.h>

/* What you may change. Another seed writes another text; a board's own random number makes a good one. */
#define CHARACTERS 200
#define TEMPERATURE 0.8f
#define TOP_P 1.0f
#define SEED 1u

static charedge_model model;
static float state[@NAME@_STATE_SIZE];
static float logits[@NAME@_VOCABULARY_SIZE];
static int8_t scratch[@NAME@_SCRATCH_BYTES];

int main(void)
{
    const charedge_error error = charedge_open(&model, @name@_model, @NAME@_MODEL_BYTES);
    if (error != CHAREDGE_OK || model.scratch_size > @NAME@_SCRATCH_BYTES || model.state_size != @NAME@_STATE_SIZE) {
        printf("the model cannot be run: error %d\n", (int)error);
        return 1;
    }

    /* Does this machine compute what was verified? */
    const float nats = charedge_score(&model, @name@_probe, @NAME@_PROBE_LENGTH, state, logits, scratch);
    const float difference = nats - (float)@NAME@_PROBE_NATS;
    if (!(difference <= (float)@NAME@_PROBE_TOLERANCE && difference >= -(float)@NAME@_PROBE_TOLERANCE)) {
        printf("the probe failed: this machine does not compute what was verified\n");
        return 1;
    }

    /* A text begins from a state of zeros and is fed a prompt, here the model's own. */
    for (uint32_t i = 0; i < @NAME@_STATE_SIZE; i++)
        state[i] = 0.0f;
    for (uint32_t i = 0; i < @NAME@_START_LENGTH; i++)
        charedge_step(&model, (uint32_t)@name@_start[i], state, logits, scratch);

    uint32_t random = SEED;
    for (uint32_t i = 0; i < CHARACTERS; i++) {
        const uint32_t token = charedge_sample(logits, @NAME@_VOCABULARY_SIZE, TEMPERATURE, TOP_P, &random);
        printf("%s", @name@_vocabulary[token]);
        charedge_step(&model, token, state, logits, scratch);
    }
    printf("\n");
    return 0;
}
