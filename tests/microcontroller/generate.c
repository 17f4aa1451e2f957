/* Checks a model by its probe and writes text, and prints all of it as numbers: the same program on the host and in the emulator.
 *
 * Defined on the command line: MODEL, the file's name in quotes; PROBE, ids with commas; STATE, VOCABULARY and SCRATCH, sizes;
 * SEED, TEMPERATURE and TOP_P. */
#include "charedge_step.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

__asm__(".section .rodata\n.balign 16\n.global model_bytes\n.global model_end\n"
        "model_bytes:\n.incbin " MODEL "\nmodel_end:\n.byte 0\n.text\n");
extern const unsigned char model_bytes[], model_end[];

static const int32_t probe[] = {PROBE};
static charedge_model model;
static float state[STATE], logits[VOCABULARY];
static int8_t scratch[SCRATCH];

#ifdef __arm__ /* under -icount shift=0 an instruction takes one nanosecond of the timer */
static volatile uint32_t *const systick = (volatile uint32_t *)0xE000E010;
static void start_count(void)
{
    systick[1] = 0xFFFFFF;
    systick[2] = 0;
    systick[0] = 5;
}
static uint32_t ticks(void)
{
    return 0xFFFFFF - systick[2];
}
#else
static void start_count(void) {}
static uint32_t ticks(void)
{
    return 0;
}
#endif

int main(void)
{
    uint32_t bits, token = 0, random = SEED;
    charedge_error error = charedge_open(&model, model_bytes, (size_t)(model_end - model_bytes));
    if (error != CHAREDGE_OK || model.state_size != STATE || model.vocabulary_size != VOCABULARY || model.scratch_size != SCRATCH) {
        printf("error %d: state %" PRIu32 ", scratch %" PRIu32 "\n", (int)error, model.state_size, model.scratch_size);
        return 1;
    }
    float score = charedge_score(&model, probe, sizeof probe / sizeof *probe, state, logits, scratch);
    memcpy(&bits, &score, sizeof bits);
    printf("score %" PRIu32 "\nlogits", bits);
    for (uint32_t i = 0; i < VOCABULARY; i++) {
        memcpy(&bits, logits + i, sizeof bits);
        printf(" %" PRIu32, bits);
    }
    start_count();
    charedge_step(&model, (uint32_t)probe[0], state, logits, scratch);
    printf("\nticks %" PRIu32 "\ntext", ticks());
    for (int i = 0; i < 200; i++) {
        token = charedge_sample(logits, VOCABULARY, TEMPERATURE, TOP_P, &random);
        printf(" %" PRIu32, token);
        charedge_step(&model, token, state, logits, scratch);
    }
    printf("\n");
    return 0;
}
