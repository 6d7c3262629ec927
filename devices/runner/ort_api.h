// The part of ONNX Runtime's C API that we call: a table of functions that only ever grows at its end.
//
// The header (onnxruntime_c_api.h, MIT) is not shipped with the library, so that this declares what we use, each at its
// place in struct OrtApi. tests/devices/test_runner.py compares the places with the real header's (ONNX Runtime 1.21).
#ifndef EDGENET_ORT_API_H
#define EDGENET_ORT_API_H

#include <stddef.h>
#include <stdint.h>

#define ORT_API_WE_KNOW 17  // ONNX Runtime 1.17; what we call is older

typedef struct ort_status ort_status;
typedef struct ort_env ort_env;
typedef struct ort_session ort_session;
typedef struct ort_session_options ort_session_options;
typedef struct ort_run_options ort_run_options;
typedef struct ort_allocator ort_allocator;
typedef struct ort_memory ort_memory;
typedef struct ort_value ort_value;
typedef struct ort_type ort_type;
typedef struct ort_tensor_type ort_tensor_type;
typedef struct ort_binding ort_binding;

enum { ORT_LOG_FATAL = 4, ORT_ALL_OPTIMIZATIONS = 99, ORT_ARENA = 1, ORT_MEMORY_DEFAULT = 0, ORT_TENSOR = 1 };

typedef void (*ort_unused)(void);
#define SKIP(from, to) ort_unused skip_##from[(to) - (from)]

struct ort_api {
    SKIP(0, 2);
    const char *(*GetErrorMessage)(const ort_status *);
    ort_status *(*CreateEnv)(int log_level, const char *name, ort_env **);
    SKIP(4, 7);
    ort_status *(*CreateSession)(const ort_env *, const char *path, const ort_session_options *, ort_session **);
    SKIP(8, 10);
    ort_status *(*CreateSessionOptions)(ort_session_options **);
    SKIP(11, 14);
    ort_status *(*EnableProfiling)(ort_session_options *, const char *prefix);
    SKIP(15, 22);
    ort_status *(*SetSessionLogSeverityLevel)(ort_session_options *, int level);
    ort_status *(*SetSessionGraphOptimizationLevel)(ort_session_options *, int level);
    ort_status *(*SetIntraOpNumThreads)(ort_session_options *, int threads);
    ort_status *(*SetInterOpNumThreads)(ort_session_options *, int threads);
    SKIP(26, 30);
    ort_status *(*SessionGetInputCount)(const ort_session *, size_t *);
    ort_status *(*SessionGetOutputCount)(const ort_session *, size_t *);
    SKIP(32, 33);
    ort_status *(*SessionGetInputTypeInfo)(const ort_session *, size_t, ort_type **);
    ort_status *(*SessionGetOutputTypeInfo)(const ort_session *, size_t, ort_type **);
    SKIP(35, 36);
    ort_status *(*SessionGetInputName)(const ort_session *, size_t, ort_allocator *, char **);
    ort_status *(*SessionGetOutputName)(const ort_session *, size_t, ort_allocator *, char **);
    SKIP(38, 49);
    ort_status *(*CreateTensorWithDataAsOrtValue)(const ort_memory *, void *, size_t, const int64_t *shape, size_t rank,
                                                  int element, ort_value **);
    SKIP(50, 51);
    ort_status *(*GetTensorMutableData)(ort_value *, void **);
    SKIP(52, 55);
    ort_status *(*CastTypeInfoToTensorInfo)(const ort_type *, const ort_tensor_type **);
    ort_status *(*GetOnnxTypeFromTypeInfo)(const ort_type *, int *);
    SKIP(57, 60);
    ort_status *(*GetTensorElementType)(const ort_tensor_type *, int *);
    ort_status *(*GetDimensionsCount)(const ort_tensor_type *, size_t *);
    ort_status *(*GetDimensions)(const ort_tensor_type *, int64_t *, size_t);
    SKIP(63, 65);
    ort_status *(*GetTensorTypeAndShape)(const ort_value *, ort_tensor_type **);
    SKIP(66, 69);
    ort_status *(*CreateCpuMemoryInfo)(int allocator, int memory, ort_memory **);
    SKIP(70, 76);
    ort_status *(*AllocatorFree)(ort_allocator *, void *);
    SKIP(77, 78);
    ort_status *(*GetAllocatorWithDefaultOptions)(ort_allocator **);
    SKIP(79, 93);
    void (*ReleaseStatus)(ort_status *);
    SKIP(94, 96);
    void (*ReleaseValue)(ort_value *);
    SKIP(97, 99);
    void (*ReleaseTensorTypeAndShapeInfo)(ort_tensor_type *);
    SKIP(100, 110);
    ort_status *(*SessionEndProfiling)(ort_session *, ort_allocator *, char **path);
    SKIP(111, 130);
    ort_status *(*AddSessionConfigEntry)(ort_session_options *, const char *key, const char *value);
    SKIP(131, 133);
    ort_status *(*RunWithBinding)(ort_session *, const ort_run_options *, const ort_binding *);
    ort_status *(*CreateIoBinding)(ort_session *, ort_binding **);
    SKIP(135, 136);
    ort_status *(*BindInput)(ort_binding *, const char *, const ort_value *);
    SKIP(137, 138);
    ort_status *(*BindOutputToDevice)(ort_binding *, const char *, const ort_memory *);
    SKIP(139, 140);
    ort_status *(*GetBoundOutputValues)(const ort_binding *, ort_allocator *, ort_value ***, size_t *);
};

#define ORT_AT(name, place) \
    _Static_assert(offsetof(struct ort_api, name) == (place) * sizeof(ort_unused), "place of " #name)
ORT_AT(GetErrorMessage, 2);
ORT_AT(CreateEnv, 3);
ORT_AT(CreateSession, 7);
ORT_AT(CreateSessionOptions, 10);
ORT_AT(EnableProfiling, 14);
ORT_AT(SetSessionLogSeverityLevel, 22);
ORT_AT(SetSessionGraphOptimizationLevel, 23);
ORT_AT(SetIntraOpNumThreads, 24);
ORT_AT(SetInterOpNumThreads, 25);
ORT_AT(SessionGetInputCount, 30);
ORT_AT(SessionGetOutputCount, 31);
ORT_AT(SessionGetInputTypeInfo, 33);
ORT_AT(SessionGetOutputTypeInfo, 34);
ORT_AT(SessionGetInputName, 36);
ORT_AT(SessionGetOutputName, 37);
ORT_AT(CreateTensorWithDataAsOrtValue, 49);
ORT_AT(GetTensorMutableData, 51);
ORT_AT(CastTypeInfoToTensorInfo, 55);
ORT_AT(GetOnnxTypeFromTypeInfo, 56);
ORT_AT(GetTensorElementType, 60);
ORT_AT(GetDimensionsCount, 61);
ORT_AT(GetDimensions, 62);
ORT_AT(GetTensorTypeAndShape, 65);
ORT_AT(CreateCpuMemoryInfo, 69);
ORT_AT(AllocatorFree, 76);
ORT_AT(GetAllocatorWithDefaultOptions, 78);
ORT_AT(ReleaseStatus, 93);
ORT_AT(ReleaseValue, 96);
ORT_AT(ReleaseTensorTypeAndShapeInfo, 99);
ORT_AT(SessionEndProfiling, 110);
ORT_AT(AddSessionConfigEntry, 130);
ORT_AT(RunWithBinding, 133);
ORT_AT(CreateIoBinding, 134);
ORT_AT(BindInput, 136);
ORT_AT(BindOutputToDevice, 138);
ORT_AT(GetBoundOutputValues, 140);

struct ort_api_base {
    const struct ort_api *(*GetApi)(uint32_t version);
    const char *(*GetVersionString)(void);
};

#endif
