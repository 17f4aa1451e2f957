#include "charedge_step.h"

#include <string.h>

#ifdef __ARM_FEATURE_SIMD32 /* Cortex-M4, M7, M33 and above: two multiplications and additions in one instruction */
#include <arm_acle.h>
#endif

/* ---- Arithmetic. Our own exponential rounds alike on every machine and needs no double. ---- */

/* e^x = 2^power 2^f with f from -1/2 to 1/2, and x held between -87 and 88. The polynomial is within 1e-7 of 2^f. */
static float exponential(float x)
{
    x = x > -87.0f ? x : -87.0f; /* NaN too */
    x = (x < 88.0f ? x : 88.0f) * 1.44269504f;
    const int32_t power = (int32_t)(x + (x < 0.0f ? -0.5f : 0.5f));
    const float f = x - (float)power;
    const float p = ((((1.32647e-3f * f + 9.67151e-3f) * f + 5.550734e-2f) * f + 2.4022242e-1f) * f + 6.9314698e-1f) * f + 1.0f;
    const uint32_t bits = (uint32_t)(power + 127) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

static float sigmoid(float x)
{
    return 1.0f / (1.0f + exponential(-x));
}

static float hyperbolic_tangent(float x)
{
    return 2.0f / (1.0f + exponential(-2.0f * x)) - 1.0f;
}

/* log(x) of an x from 1 up, by Halley's method. */
static float logarithm(float x)
{
    float halvings = 0.0f;
    for (; x > 2.0f; x *= 0.5f)
        halvings += 0.693147181f;
    float y = x - 1.0f;
    for (int i = 0; i < 3; i++) {
        const float e = exponential(y);
        y += 2.0f * (x - e) / (x + e);
    }
    return halvings + y;
}

static uint32_t load_u32(const uint8_t *bytes)
{
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static float load_float(const uint8_t *floats, uint32_t index)
{
    const uint32_t bits = load_u32(floats + 4 * (size_t)index);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The nearest int8 to a number, halves away from zero. */
static int8_t nearest(float x)
{
    x = x > -127.0f ? x : -127.0f; /* NaN too */
    x = x < 127.0f ? x : 127.0f;
    return (int8_t)(x + (x < 0.0f ? -0.5f : 0.5f));
}

/* The sum of products, exact: n is at most 65,536. */
static int32_t dot(const int8_t *a, const int8_t *b, uint32_t n)
{
    int32_t sum = 0;
#ifdef __ARM_FEATURE_SIMD32
    for (; n >= 4; n -= 4, a += 4, b += 4) {
        uint32_t x, y;
        memcpy(&x, a, 4);
        memcpy(&y, b, 4);
        sum = __smlad(__sxtb16((int8x4_t)x), __sxtb16((int8x4_t)y), sum);
        sum = __smlad(__sxtb16((int8x4_t)(x >> 8)), __sxtb16((int8x4_t)(y >> 8)), sum);
    }
#endif
    for (uint32_t i = 0; i < n; i++)
        sum += (int32_t)a[i] * b[i];
    return sum;
}

/* ---- The file: a flatbuffer, read with every position checked. Positions wrap around like any uint32_t. ---- */

typedef struct {
    const uint8_t *bytes;
    uint32_t size;
    uint32_t tensors, tensor_count;
    uint32_t buffers, buffer_count;
    charedge_error error; /* the first one */
} reader;

static uint32_t fail(reader *r, charedge_error error)
{
    if (r->error == CHAREDGE_OK)
        r->error = error;
    return 0;
}

static uint32_t read_u32(reader *r, uint32_t at)
{
    return at > r->size - 4 ? fail(r, CHAREDGE_DAMAGED) : load_u32(r->bytes + at);
}

static uint32_t read_u16(reader *r, uint32_t at)
{
    return at > r->size - 2 ? fail(r, CHAREDGE_DAMAGED) : r->bytes[at] | (uint32_t)r->bytes[at + 1] << 8;
}

static uint32_t follow(reader *r, uint32_t at)
{
    return at + read_u32(r, at);
}

/* The position of a table's field, or 0 where it has its default. */
static uint32_t field(reader *r, uint32_t table, uint32_t index)
{
    const uint32_t vtable = table - read_u32(r, table), entry = 4 + 2 * index;
    const uint32_t offset = entry < read_u16(r, vtable) ? read_u16(r, vtable + entry) : 0;
    return offset ? table + offset : 0;
}

/* The position of the first element of a table's vector, whose elements have some bytes, and their number. */
static uint32_t vector(reader *r, uint32_t table, uint32_t index, uint32_t bytes, uint32_t *count)
{
    const uint32_t at = field(r, table, index);
    const uint32_t start = at ? follow(r, at) : fail(r, CHAREDGE_DAMAGED);
    *count = read_u32(r, start);
    if (r->error != CHAREDGE_OK || *count > (r->size - start - 4) / bytes)
        *count = fail(r, CHAREDGE_DAMAGED);
    return start + 4;
}

enum { FLOAT32 = 0, INT8 = 9 }; /* of TFLite's schema */

static int has_name(reader *r, uint32_t tensor, const char *scope, const char *part)
{
    const size_t first = strlen(scope), second = strlen(part);
    uint32_t length;
    const uint32_t start = vector(r, tensor, 3, 1, &length);
    return length == first + second && memcmp(r->bytes + start, scope, first) == 0 &&
           memcmp(r->bytes + start + first, part, second) == 0;
}

/* The content of the constant SCOPE PART, and its number of bytes; NULL where there is no such tensor or the file is damaged. */
static const uint8_t *find(reader *r, const char *scope, const char *part, uint32_t type, uint32_t *length)
{
    *length = 0;
    for (uint32_t i = 0; i < r->tensor_count && r->error == CHAREDGE_OK; i++) {
        const uint32_t tensor = follow(r, r->tensors + 4 * i);
        if (!has_name(r, tensor, scope, part))
            continue;
        const uint32_t type_at = field(r, tensor, 1), buffer_at = field(r, tensor, 2);
        if ((type_at ? read_u16(r, type_at) & 0xFF : 0) != type)
            fail(r, CHAREDGE_UNSUPPORTED);
        const uint32_t buffer = buffer_at ? read_u32(r, buffer_at) : 0;
        if (buffer >= r->buffer_count)
            fail(r, CHAREDGE_DAMAGED);
        const uint32_t start = vector(r, follow(r, r->buffers + 4 * buffer), 0, 1, length);
        return r->error == CHAREDGE_OK ? r->bytes + start : NULL;
    }
    return NULL;
}

/* A matrix: int8 rows, a scale for each row or, in a table, for each column, and perhaps a bias for each row. */
static void find_matrix(reader *r, charedge_matrix *m, const char *scope, uint32_t rows, uint32_t columns, int table)
{
    uint32_t weights, scales, biases;
    m->weights = (const int8_t *)find(r, scope, table ? "/rows" : "/weights", INT8, &weights);
    m->scale = find(r, scope, table ? "/rows/scale" : "/weights/scale", FLOAT32, &scales);
    m->bias = find(r, scope, "/bias", FLOAT32, &biases);
    if (columns == 0 || weights % columns != 0 || weights / columns != rows || scales != 4 * (table ? columns : rows))
        fail(r, CHAREDGE_DAMAGED);
    if (m->bias != NULL && biases != 4 * rows)
        fail(r, CHAREDGE_DAMAGED);
}

/* The sizes that all others follow from: V, the cell, its units and the embedding. */
static void find_sizes(reader *r, charedge_model *model)
{
    uint32_t scales, weights, columns, length;
    find(r, "logits", "/weights", INT8, &weights);
    find(r, "logits", "/weights/scale", FLOAT32, &scales);
    find(r, "embedding", "/rows/scale", FLOAT32, &columns);
    model->vocabulary_size = scales / 4;
    model->units = scales < 8 ? 0 : weights / (scales / 4);
    model->embedding_dim = columns / 4;
    model->gates = find(r, "layer_0/input/recurrent/all", "/weights", INT8, &length) ? 4 : 3;
    if (model->units == 0 || model->units > 65536 || model->embedding_dim > 65536)
        fail(r, CHAREDGE_DAMAGED);
}

/* layer_LAYER/GATE/SIDE/all, where GATE is the first one of the cell. */
static const char *scope_of(char *scope, const charedge_model *model, uint32_t layer, const char *side)
{
    strcpy(scope, layer < 10 ? "layer_0/" : "layer_00/");
    scope[6] = (char)('0' + (layer < 10 ? layer : layer / 10 % 10));
    if (layer >= 10)
        scope[7] = (char)('0' + layer % 10);
    return strcat(strcat(scope, model->gates == 3 ? "update" : "input"), side);
}

static void find_layers(reader *r, charedge_model *model)
{
    const uint32_t units = model->units, rows = model->gates * units;
    uint32_t columns = model->embedding_dim, length;
    char scope[48];
    for (uint32_t i = 0; i == 0 || find(r, scope_of(scope, model, i, "/recurrent/all"), "/weights", INT8, &length); i++) {
        if (i == CHAREDGE_MAX_LAYERS) {
            fail(r, CHAREDGE_TOO_DEEP);
            return;
        }
        if (columns)
            find_matrix(r, &model->layer[i].input, scope_of(scope, model, i, "/input/all"), rows, columns, 0);
        columns = units;
        find_matrix(r, &model->layer[i].recurrent, scope_of(scope, model, i, "/recurrent/all"), rows, units, 0);
        model->layers = i + 1;
    }
}

charedge_error charedge_open(charedge_model *model, const void *bytes, size_t size)
{
    reader r = {(const uint8_t *)bytes, (uint32_t)size, 0, 0, 0, 0, CHAREDGE_OK};
    memset(model, 0, sizeof *model);
    if (size < 64 || size > 0x7FFFFFFF || memcmp(r.bytes + 4, "TFL3", 4) != 0)
        return CHAREDGE_NOT_A_MODEL;
    const uint32_t root = follow(&r, 0);
    uint32_t count;
    const uint32_t subgraphs = vector(&r, root, 2, 4, &count);
    if (count == 0)
        return CHAREDGE_DAMAGED;
    r.tensors = vector(&r, follow(&r, subgraphs), 0, 4, &r.tensor_count);
    r.buffers = vector(&r, root, 4, 4, &r.buffer_count);

    find_sizes(&r, model);
    find_matrix(&r, &model->logits, "logits", model->vocabulary_size, model->units, 0);
    if (model->embedding_dim)
        find_matrix(&r, &model->table, "embedding", model->vocabulary_size, model->embedding_dim, 1);
    else
        find_matrix(&r, &model->table, "layer_0/table", model->vocabulary_size, model->gates * model->units, 1);
    find_layers(&r, model);
    model->state_size = model->layers * model->units * (model->gates == 4 ? 2 : 1);
    model->scratch_size = CHAREDGE_SCRATCH_SIZE(model->units, model->embedding_dim);
    return r.error;
}

/* ---- The step. ---- */

static float table_entry(const charedge_model *model, uint32_t token, uint32_t columns, uint32_t column)
{
    return (float)model->table.weights[(size_t)token * columns + column] * load_float(model->table.scale, column);
}

/* Numbers as int8 and the value of a level, so that the largest absolute value is the last level. */
static float quantize(int8_t *levels, const float *values, uint32_t n)
{
    float largest = 1e-30f;
    for (uint32_t i = 0; i < n; i++) {
        const float size = values[i] < 0.0f ? -values[i] : values[i];
        largest = size > largest ? size : largest;
    }
    for (uint32_t i = 0; i < n; i++)
        levels[i] = nearest(values[i] * (127.0f / largest));
    return largest / 127.0f;
}

static float quantize_embedding(const charedge_model *model, uint32_t token, int8_t *levels)
{
    const uint32_t n = model->embedding_dim;
    float largest = 1e-30f;
    for (uint32_t i = 0; i < n; i++) {
        const float value = table_entry(model, token, n, i);
        largest = value > largest ? value : -value > largest ? -value : largest;
    }
    for (uint32_t i = 0; i < n; i++)
        levels[i] = nearest(table_entry(model, token, n, i) * (127.0f / largest));
    return largest / 127.0f;
}

/* One output of a matrix. */
static float product(const charedge_matrix *m, uint32_t row, const int8_t *x, uint32_t columns, float x_scale)
{
    const int32_t sum = dot(m->weights + (size_t)row * columns, x, columns);
    const float value = (float)sum * (load_float(m->scale, row) * x_scale);
    return m->bias == NULL ? value : value + load_float(m->bias, row);
}

/* h' = c + z (h - c), c = tanh(x_c + r u_c). */
static void gru_unit(const float *x, const float *u, float *h)
{
    const float z = sigmoid(x[0] + u[0]), r = sigmoid(x[1] + u[1]);
    const float candidate = hyperbolic_tangent(x[2] + r * u[2]);
    *h = candidate + z * (*h - candidate);
}

/* c' = f c + i g, h' = o tanh(c'). */
static void lstm_unit(const float *x, const float *u, float *h, float *c)
{
    const float i = sigmoid(x[0] + u[0]), f = sigmoid(x[1] + u[1]), o = sigmoid(x[3] + u[3]);
    *c = f * *c + i * hyperbolic_tangent(x[2] + u[2]);
    *h = o * hyperbolic_tangent(*c);
}

/* A unit is done with all its gates, and its state replaced: the matrices read the state before the step from `levels` alone. */
void charedge_step(const charedge_model *model, uint32_t token, float *state, float *logits, int8_t *scratch)
{
    const uint32_t units = model->units, gates = model->gates;
    int8_t *levels = scratch, *input = scratch + units;
    uint32_t columns = model->embedding_dim;
    token = token < model->vocabulary_size ? token : 0;
    float input_scale = columns ? quantize_embedding(model, token, input) : 0.0f;

    for (uint32_t i = 0; i < model->layers; i++) {
        float *h = state, *c = state + units;
        const float scale = quantize(levels, h, units);
        for (uint32_t unit = 0; unit < units; unit++) {
            float x[4], u[4];
            for (uint32_t gate = 0; gate < gates; gate++) {
                const uint32_t row = gate * units + unit;
                x[gate] = columns ? product(&model->layer[i].input, row, input, columns, input_scale)
                                  : table_entry(model, token, gates * units, row);
                u[gate] = product(&model->layer[i].recurrent, row, levels, units, scale);
            }
            if (gates == 3)
                gru_unit(x, u, h + unit);
            else
                lstm_unit(x, u, h + unit, c + unit);
        }
        input_scale = quantize(input, h, units);
        columns = units;
        state += gates == 3 ? units : 2 * units;
    }
    for (uint32_t i = 0; logits != NULL && i < model->vocabulary_size; i++)
        logits[i] = product(&model->logits, i, input, columns, input_scale);
}

/* ---- What is done with the logits. ---- */

/* A number from 0 up and below 1: a counter, mixed as in Wellons' hash prospector. */
static float uniform(uint32_t *random)
{
    uint32_t z = *random += 0x9E3779B9u;
    z = (z ^ z >> 16) * 0x21F0AAADu;
    z = (z ^ z >> 15) * 0x735A2D97u;
    return (float)((z ^ z >> 15) >> 8) * (1.0f / 16777216.0f);
}

static uint32_t most_likely(const float *values, uint32_t size)
{
    uint32_t best = 1;
    for (uint32_t i = 2; i < size; i++)
        best = values[i] > values[best] ? i : best;
    return best;
}

uint32_t charedge_sample(float *logits, uint32_t vocabulary_size, float temperature, float top_p, uint32_t *random)
{
    for (uint32_t i = 1; i < vocabulary_size; i++)
        if (!(logits[i] > -1e30f && logits[i] < 1e30f))
            return 0;
    const uint32_t best = most_likely(logits, vocabulary_size);
    if (!(temperature > 0.0f))
        return best;

    const float largest = logits[best];
    float mass = 0.0f;
    for (uint32_t i = 1; i < vocabulary_size; i++)
        mass += logits[i] = exponential((logits[i] - largest) / temperature);
    const float sign = top_p < 1.0f ? -1.0f : 1.0f; /* those that top_p keeps become negative */
    if (top_p < 1.0f) {
        const float wanted = top_p * mass;
        mass = 0.0f;
        for (uint32_t i = best; mass < wanted && logits[i] > 0.0f; i = most_likely(logits, vocabulary_size)) {
            mass += logits[i];
            logits[i] = -logits[i];
        }
    }
    float left = uniform(random) * mass;
    uint32_t drawn = best;
    for (uint32_t i = 1; i < vocabulary_size && left >= 0.0f; i++)
        if (sign * logits[i] > 0.0f) {
            drawn = i;
            left -= sign * logits[i];
        }
    return drawn;
}

static float nats(const float *logits, uint32_t size, uint32_t next)
{
    float largest = logits[0], sum = 0.0f;
    for (uint32_t i = 1; i < size; i++)
        largest = logits[i] > largest ? logits[i] : largest;
    for (uint32_t i = 0; i < size; i++)
        sum += exponential(logits[i] - largest);
    return logarithm(sum) + largest - logits[next];
}

float charedge_score(const charedge_model *m, const int32_t *tokens, uint32_t count, float *state, float *logits, int8_t *scratch)
{
    float total = 0.0f;
    memset(state, 0, m->state_size * sizeof *state);
    for (uint32_t i = 0; i + 1 < count; i++) {
        charedge_step(m, (uint32_t)tokens[i], state, logits, scratch);
        const uint32_t next = (uint32_t)tokens[i + 1];
        total += nats(logits, m->vocabulary_size, next < m->vocabulary_size ? next : 0);
    }
    return total / (float)(count - 1);
}
