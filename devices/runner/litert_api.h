// The part of LiteRT's C API that we call: symbols of libLiteRt.so (VERS_1.0), as in ai-edge-litert 2.3.0.
//
// The headers (litert/c/*.h, Apache-2.0) are not shipped with the library, so that this declares what we use: handles
// are opaque, and the three structs below have the layout of LiteRtLayout, LiteRtRankedTensorType and
// ProfiledEventData. tests/devices/test_runner.py holds them to the real library: the shapes and hashes would differ.
#ifndef EDGENET_LITERT_API_H
#define EDGENET_LITERT_API_H

#include <stddef.h>
#include <stdint.h>

#include "tensor.h"

typedef void *lrt_environment, *lrt_model, *lrt_options, *lrt_opaque, *lrt_compiled, *lrt_signature, *lrt_subgraph;
typedef void *lrt_tensor, *lrt_buffer, *lrt_requirements, *lrt_profiler;

struct lrt_layout {
    unsigned rank : 7;
    unsigned has_strides : 1;
    int32_t dimensions[MAX_RANK];  // below 0: open
    uint32_t strides[MAX_RANK];
};

struct lrt_type {
    int element;
    struct lrt_layout layout;
};

struct lrt_event {
    const char *tag;
    int type;
    uint64_t start_us;
    uint64_t elapsed_us;
    uint64_t memory[6];  // before and after
    uint64_t node;
    uint64_t subgraph;
    int source;
};

_Static_assert(sizeof(struct lrt_type) == 72, "LiteRtRankedTensorType");
_Static_assert(sizeof(struct lrt_event) == 13 * 8, "ProfiledEventData");

enum lrt_event_type { LRT_OPERATOR = 2, LRT_DELEGATE_INTERNAL = 4, LRT_DELEGATE_OPERATOR = 8 };
enum { LRT_CPU = 1, LRT_READ = 0, LRT_WRITE = 1 };

// name, then its arguments; each returns a status, 0 for success.
#define LITERT_FUNCTIONS(F)                                                                        \
    F(LiteRtCreateEnvironment, int, const void *, lrt_environment *)                               \
    F(LiteRtCreateModelFromFile, lrt_environment, const char *, lrt_model *)                       \
    F(LiteRtCreateOptions, lrt_options *)                                                          \
    F(LiteRtSetOptionsHardwareAccelerators, lrt_options, int)                                      \
    F(LiteRtCreateOpaqueOptions, const char *, void *, void (*)(void *), lrt_opaque *)             \
    F(LiteRtAddOpaqueOptions, lrt_options, lrt_opaque)                                             \
    F(LiteRtCreateCompiledModel, lrt_environment, lrt_model, lrt_options, lrt_compiled *)          \
    F(LiteRtGetMainModelSubgraphIndex, lrt_model, size_t *)                                        \
    F(LiteRtGetModelSubgraph, lrt_model, size_t, lrt_subgraph *)                                   \
    F(LiteRtGetSubgraphOutput, lrt_subgraph, size_t, lrt_tensor *)                                 \
    F(LiteRtGetNumModelSignatures, lrt_model, size_t *)                                            \
    F(LiteRtGetModelSignature, lrt_model, size_t, lrt_signature *)                                 \
    F(LiteRtGetSignatureSubgraph, lrt_signature, lrt_subgraph *)                                   \
    F(LiteRtGetNumSignatureInputs, lrt_signature, size_t *)                                        \
    F(LiteRtGetNumSignatureOutputs, lrt_signature, size_t *)                                       \
    F(LiteRtGetSignatureInputTensorByIndex, lrt_signature, size_t, lrt_tensor *)                   \
    F(LiteRtGetSignatureOutputTensorByIndex, lrt_signature, size_t, lrt_tensor *)                  \
    F(LiteRtGetTensorName, lrt_tensor, const char **)                                              \
    F(LiteRtGetTensorIndex, lrt_tensor, uint32_t *)                                                \
    F(LiteRtGetRankedTensorType, lrt_tensor, struct lrt_type *)                                    \
    F(LiteRtGetCompiledModelInputBufferRequirements, lrt_compiled, size_t, size_t, lrt_requirements *)  \
    F(LiteRtGetCompiledModelOutputBufferRequirements, lrt_compiled, size_t, size_t, lrt_requirements *) \
    F(LiteRtCreateManagedTensorBufferFromRequirements, lrt_environment, const struct lrt_type *,   \
      lrt_requirements, lrt_buffer *)                                                              \
    F(LiteRtGetTensorBufferPackedSize, lrt_buffer, size_t *)                                       \
    F(LiteRtLockTensorBuffer, lrt_buffer, void **, int)                                            \
    F(LiteRtUnlockTensorBuffer, lrt_buffer)                                                        \
    F(LiteRtRunCompiledModel, lrt_compiled, size_t, size_t, lrt_buffer *, size_t, lrt_buffer *)    \
    F(LiteRtCompiledModelGetProfiler, lrt_compiled, lrt_profiler *)                                \
    F(LiteRtStartProfiler, lrt_profiler)                                                           \
    F(LiteRtStopProfiler, lrt_profiler)                                                            \
    F(LiteRtResetProfiler, lrt_profiler)                                                           \
    F(LiteRtGetNumProfilerEvents, lrt_profiler, int *)                                             \
    F(LiteRtGetProfilerEvents, lrt_profiler, int, struct lrt_event *)

struct litert_api {
#define DECLARE(name, ...) int (*name)(__VA_ARGS__);
    LITERT_FUNCTIONS(DECLARE)
#undef DECLARE
};

// The functions of the open library.
extern struct litert_api lrt;

// What a status means, in words.
const char *lrt_status(int status);

#endif
