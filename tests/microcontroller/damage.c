/* Opens copies of a model, each damaged in another way and as long as its memory, and runs those that open.
 *
 * damage MODEL: every 7th truncation, then 4,000 copies in which 1 to 4 bytes are others. */
#include "charedge_step.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned opened, refused;

static void try_bytes(const unsigned char *bytes, size_t size)
{
    charedge_model model;
    const int32_t tokens[] = {1, 2, -1, 3};
    uint32_t random = 1;
    if (charedge_open(&model, bytes, size) != CHAREDGE_OK) {
        refused++;
        return;
    }
    opened++;
    float *state = (float *)calloc(model.state_size, sizeof *state);
    float *logits = (float *)calloc(model.vocabulary_size, sizeof *logits);
    int8_t *scratch = (int8_t *)malloc(model.scratch_size);
    charedge_score(&model, tokens, 4, state, logits, scratch);
    if (charedge_sample(logits, model.vocabulary_size, 0.8f, 0.9f, &random) >= model.vocabulary_size)
        abort();
    free(state);
    free(logits);
    free(scratch);
}

int main(int argc, char **argv)
{
    static unsigned char whole[1 << 20];
    FILE *file = fopen(argv[argc - 1], "rb");
    const size_t size = file ? fread(whole, 1, sizeof whole, file) : 0;
    srand(1);
    for (size_t length = 0; length < size; length += 7) {
        unsigned char *copy = (unsigned char *)malloc(length + 1);
        memcpy(copy + 1, whole, length); /* ends where its memory ends */
        try_bytes(copy + 1, length);
        free(copy);
    }
    for (int i = 0; i < 4000; i++) {
        unsigned char *copy = (unsigned char *)malloc(size);
        memcpy(copy, whole, size);
        for (int flips = 1 + i % 4; flips > 0; flips--)
            copy[(size_t)rand() % size] = (unsigned char)(rand() >> 7);
        try_bytes(copy, size);
        free(copy);
    }
    printf("%u %u\n", opened, refused);
    if (file)
        fclose(file);
    return 0;
}
