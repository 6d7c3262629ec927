// Tensors as both engines describe them, the input that every measurement uses, and the hash of the output.
#ifndef EDGENET_TENSOR_H
#define EDGENET_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAX_RANK 8
#define MAX_TENSORS 64                // inputs, or outputs
#define MAX_TENSOR_BYTES (1ull << 31) // a broken file asks for more

enum element { BAD_ELEMENT, BOOL, INT8, UINT8, INT16, UINT16, INT32, UINT32, INT64, UINT64, FLOAT16, FLOAT32, FLOAT64 };

struct tensor {
    const char *name;
    enum element element;
    int rank;
    int64_t shape[MAX_RANK];  // below 0: open
};

struct bytes {
    const void *data;
    size_t size;
};

// Bytes of a tensor. A file whose tensor holds no numbers, has an open or absurd size, ends the process with a line.
// what: "input" or "output".
size_t tensor_bytes(const struct tensor *tensor, const char *what);

// Write "[1, ?, 224, 3]".
void shape_text(const struct tensor *tensor, char *text, size_t size);

// Fill a buffer as devices/runtimes/runtime.py:example_input does: all byte values, or [0, 1) in steps of 1/256.
void fill_with_noise(void *buffer, enum element element, size_t size);

// FNV-1a, 64 bits.
uint64_t fnv1a(struct bytes bytes);

#endif
