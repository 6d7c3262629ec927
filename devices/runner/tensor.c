#include "tensor.h"

#include <stdio.h>
#include <string.h>

#include "report.h"

static const size_t element_bytes[] = {
    [BOOL] = 1,   [INT8] = 1,   [UINT8] = 1,   [INT16] = 2,   [UINT16] = 2,  [INT32] = 4,
    [UINT32] = 4, [INT64] = 8,  [UINT64] = 8,  [FLOAT16] = 2, [FLOAT32] = 4, [FLOAT64] = 8,
};

void shape_text(const struct tensor *tensor, char *text, size_t size) {
    size_t used = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < tensor->rank && used < size; i++) {
        const char *comma = i > 0 ? ", " : "";
        long long n = tensor->shape[i];
        used += (size_t)(n < 0 ? snprintf(text + used, size - used, "%s?", comma)
                               : snprintf(text + used, size - used, "%s%lld", comma, n));
    }
    if (used < size)
        snprintf(text + used, size - used, "]");
}

size_t tensor_bytes(const struct tensor *tensor, const char *what) {
    char shape[256];
    shape_text(tensor, shape, sizeof shape);
    if (tensor->element == BAD_ELEMENT)
        fail(CAUSE_MODEL, "its %s '%.40s' holds no numbers: an image classifier's does", what, tensor->name);
    unsigned long long bytes = element_bytes[tensor->element];
    for (int i = 0; i < tensor->rank; i++) {
        int64_t n = tensor->shape[i];
        if (n < 1)
            fail(CAUSE_MODEL, "its %s '%.40s' is %s: export it with a fixed size", what, tensor->name, shape);
        if ((unsigned long long)n > MAX_TENSOR_BYTES / bytes)
            fail(CAUSE_MODEL, "its %s '%.40s' is %s: an absurd size, the file is corrupt", what, tensor->name, shape);
        bytes *= (unsigned long long)n;
    }
    return (size_t)bytes;
}

static uint8_t noise(uint64_t index) { return (uint8_t)(index * 2654435761u >> 13); }

// byte / 256 as IEEE half: exact, so no rounding is needed.
static uint16_t half_of(uint8_t byte) {
    if (byte == 0)
        return 0;
    int top = 31 - __builtin_clz(byte);
    return (uint16_t)((top - 8 + 15) << 10 | ((byte << (10 - top)) & 0x3ff));
}

void fill_with_noise(void *buffer, enum element element, size_t size) {
    size_t width = element_bytes[element];
    for (size_t i = 0; i < size / width; i++) {
        uint8_t byte = noise(i);
        uint64_t whole = element == BOOL ? byte != 0 : byte;  // narrow types take its low bytes: little endian
        uint16_t half = half_of(byte);
        float single = (float)byte / 256;
        double wide = byte / 256.0;
        const void *value = &whole;
        if (element == FLOAT16)
            value = &half;
        else if (element == FLOAT32)
            value = &single;
        else if (element == FLOAT64)
            value = &wide;
        memcpy((char *)buffer + i * width, value, width);
    }
}

uint64_t fnv1a(struct bytes bytes) {
    const uint8_t *data = bytes.data;
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < bytes.size; i++)
        hash = (hash ^ data[i]) * 1099511628211u;
    return hash;
}
