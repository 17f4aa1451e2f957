/* One step of a charedge model in plain C99: a token and the state before it -> logits and the state after it.
 *
 * It reads the bytes of a model file of the profile int8-static or int8 where they lie, in flash or in memory, at any alignment. It
 * allocates nothing, needs no library but C's <string.h>, and multiplies int8 by int8. Machines whose float32 is that of IEEE 754
 * give the same results to the last bit if the compiler does not fuse multiplications and additions (-ffp-contract=off).
 */
#ifndef CHAREDGE_STEP_H
#define CHAREDGE_STEP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The most layers that a model may have: each takes 24 bytes of charedge_model on a 32-bit processor. Define it for all sources. */
#ifndef CHAREDGE_MAX_LAYERS
#define CHAREDGE_MAX_LAYERS 16
#endif

/* The bytes of scratch memory that a step needs. Of a model whose input table is folded, embedding_dim does not count: give 0. */
#define CHAREDGE_SCRATCH_SIZE(units, embedding_dim) ((units) + ((embedding_dim) > (units) ? (embedding_dim) : (units)))

typedef enum {
    CHAREDGE_OK = 0,
    CHAREDGE_NOT_A_MODEL, /* the bytes are not a TFLite file */
    CHAREDGE_UNSUPPORTED, /* the weights are not int8: convert with the profile int8-static or int8 */
    CHAREDGE_TOO_DEEP,    /* more layers than CHAREDGE_MAX_LAYERS */
    CHAREDGE_DAMAGED      /* something is missing, has another size, or lies outside the bytes */
} charedge_error;

/* int8 rows with a scale for each; of a table, with a scale for each column. All of it lies in the model's bytes. */
typedef struct {
    const int8_t *weights;
    const uint8_t *scale; /* float32 */
    const uint8_t *bias;  /* float32, or NULL */
} charedge_matrix;

typedef struct {
    uint32_t vocabulary_size; /* V, [UNK] included */
    uint32_t units;
    uint32_t layers;
    uint32_t embedding_dim; /* 0: the table holds the first layer's gate inputs */
    uint32_t gates;         /* 3: GRU, 4: LSTM */
    uint32_t state_size;    /* S, floats */
    uint32_t scratch_size;  /* bytes */
    charedge_matrix table;
    charedge_matrix logits;
    struct { charedge_matrix input, recurrent; } layer[CHAREDGE_MAX_LAYERS];
} charedge_model;

/* Find a model's tensors in its bytes, which must stay where they are. Reads nothing outside them, whatever they are.
 *
 * bytes: a model file, or its flatbuffer alone.
 * Returns CHAREDGE_OK, or why the model cannot be run. Weights that were damaged are not noticed: charedge_score can tell. */
charedge_error charedge_open(charedge_model *model, const void *bytes, size_t size);

/* Run the network for one token.
 *
 * token: below V; any other is read as 0, [UNK].
 * state: S floats, zeros at the beginning of a text; replaced by the state after the token.
 * logits: V floats, of the next token; NULL leaves them out, and their time, where a prompt is read.
 * scratch: scratch_size bytes, which hold nothing between two steps. */
void charedge_step(const charedge_model *model, uint32_t token, float *state, float *logits, int8_t *scratch);

/* Draw the next token, as `charedge generate` does with --temperature and --top-p, and never 0, [UNK]. The random numbers are not
 * those of `charedge generate`: a seed gives another text.
 *
 * logits: of a step; overwritten.
 * temperature: 0 takes the most likely token.
 * top_p: keep the smallest set of most likely tokens with this total probability; 1 keeps all. Costs V comparisons a token kept.
 * random: any seed at first.
 * Returns the token, or 0 where a logit is NaN or infinite. */
uint32_t charedge_sample(float *logits, uint32_t vocabulary_size, float temperature, float top_p, uint32_t *random);

/* The mean of -log softmax(logits)[next] in nats over the count - 1 predictions of a text, from a state of zeros. If the probe's is
 * not the recorded number within the tolerance, this machine does not compute what was verified.
 *
 * tokens: count of them, at least 2, from 0 to V - 1.
 * state, logits, scratch: as for charedge_step; overwritten. */
float charedge_score(const charedge_model *m, const int32_t *tokens, uint32_t count, float *state, float *logits, int8_t *scratch);
#ifdef __cplusplus
}
#endif

#endif
