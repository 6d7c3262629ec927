// The seam between the runner and the libraries that run models. One model at a time: the state is the engine's own.
#ifndef EDGENET_ENGINE_H
#define EDGENET_ENGINE_H

#include <stdbool.h>

#include "options.h"
#include "tensor.h"

struct engine {
    // Open the shared library; ends the process where it is missing or lacks what we call.
    void (*load)(const char *lib);
    // Open the model and allocate its tensors; false, with why(), where the library refuses it.
    // plain: without the delegate that makes it fast, which refuses some files that run without it.
    bool (*open)(const struct options *options, bool plain);
    // Fill every input with noise.
    void (*feed)(void);
    // Run once; false, with why(), where the library fails.
    bool (*invoke)(void);
    // The first output, raw; valid until the next invoke.
    struct bytes (*output)(void);
    // Begin to record operators (the warm-up is over; `earlier` inferences ran), keep what one inference recorded,
    // and write the op lines of `runs` inferences.
    void (*profile_start)(int64_t earlier);
    void (*profile_take)(void);
    void (*profile_report)(int64_t runs);
    // The library and its version as far as it tells it: "ONNX Runtime 1.31.1".
    const char *(*runtime)(void);
    // What runs the operators: "XNNPACK", "none", "CPUExecutionProvider".
    const char *(*delegate)(void);
    // Why the last call failed.
    const char *(*why)(void);
    bool has_plain;
};

extern const struct engine litert_engine;
extern const struct engine ort_engine;

#endif
