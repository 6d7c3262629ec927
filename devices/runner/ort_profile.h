// Operator times from the trace that ONNX Runtime's profiler writes.
#ifndef EDGENET_ORT_PROFILE_H
#define EDGENET_ORT_PROFILE_H

#include <stdint.h>

// Make a private folder for the trace inside `scratch`, and return the prefix for its name.
const char *ort_profile_open(const char *scratch);

// Add up the operators of a trace, those of the first `earlier` inferences left out; the trace and its folder go.
void ort_profile_read(const char *path, int64_t earlier);

#endif
