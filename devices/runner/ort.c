// ONNX Runtime on the CPU, bound as its Python session is.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "engine.h"
#include "operators.h"
#include "ort_api.h"
#include "ort_profile.h"
#include "report.h"

static const struct ort_api *ort;

static struct {
    char runtime[64];
    ort_session *session;
    ort_binding *binding;
    ort_allocator *allocator;
    ort_memory *memory;
    size_t input_count, output_count;
    char *input_names[MAX_TENSORS];
    int input_types[MAX_TENSORS];  // ONNX's element type
    struct tensor inputs[MAX_TENSORS];
    ort_value *first_output;
    int64_t earlier;  // inferences before the ones that are profiled
    char why[512];
} state;

// Leave the enclosing function with false, and keep the library's own words, where a call fails.
#define CHECK(call)                                                                      \
    do {                                                                                 \
        ort_status *status_ = (call);                                                    \
        if (status_ != NULL) {                                                           \
            snprintf(state.why, sizeof state.why, "%s", ort->GetErrorMessage(status_));  \
            ort->ReleaseStatus(status_);                                                 \
            return false;                                                                \
        }                                                                                \
    } while (0)

static void load(const char *lib) {
    void *library = dlopen(lib, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        fail(CAUSE_RUNTIME, "ONNX Runtime cannot be opened: %s", dlerror());
    const struct ort_api_base *(*base)(void);
    *(void **)&base = dlsym(library, "OrtGetApiBase");
    if (base == NULL)
        fail(CAUSE_RUNTIME, "%s has no OrtGetApiBase: it is not ONNX Runtime", lib);
    ort = base()->GetApi(ORT_API_WE_KNOW);
    snprintf(state.runtime, sizeof state.runtime, "ONNX Runtime %s", base()->GetVersionString());
    if (ort == NULL)
        fail(CAUSE_RUNTIME, "%s is too old: 1.%d or newer is needed", state.runtime, ORT_API_WE_KNOW);
}

// onnxruntime_c_api.h: ONNXTensorElementDataType.
static enum element element_of(int type) {
    static const enum element known[] = {BAD_ELEMENT, FLOAT32, UINT8, INT8,    UINT16,  INT16,  INT32,
                                         INT64,       BAD_ELEMENT /* string */, BOOL, FLOAT16, FLOAT64, UINT32, UINT64};
    return type >= 0 && type < (int)(sizeof known / sizeof *known) ? known[type] : BAD_ELEMENT;
}

static bool describe(ort_type *type, struct tensor *tensor, int *element) {
    const ort_tensor_type *info;
    size_t rank;
    int kind;
    CHECK(ort->GetOnnxTypeFromTypeInfo(type, &kind));
    if (kind != ORT_TENSOR)
        return true;  // its element stays bad
    CHECK(ort->CastTypeInfoToTensorInfo(type, &info));
    CHECK(ort->GetTensorElementType(info, element));
    CHECK(ort->GetDimensionsCount(info, &rank));
    if (rank > MAX_RANK)
        fail(CAUSE_MODEL, "its '%.40s' has %zu dimensions: an image has four", tensor->name, rank);
    CHECK(ort->GetDimensions(info, tensor->shape, rank));
    tensor->rank = (int)rank;
    tensor->element = element_of(*element);
    return true;
}

// Whether ONNX Runtime sums int8 exactly by itself: on x86 only with VNNI; see EXACT in devices/runtimes/onnx_runtime.py.
static bool sums_exactly(void) {
#if defined(__x86_64__)
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx))
        return false;
    if ((ecx & 1u << 11) != 0 || (edx & 1u << 25) != 0)  // AVX512-VNNI, AMX-INT8
        return true;
    return eax >= 1 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax & 1u << 4) != 0;  // AVX-VNNI
#else
    return true;
#endif
}

static bool open_session(const struct options *wanted) {
    ort_env *env;
    ort_session_options *options;
    CHECK(ort->CreateEnv(ORT_LOG_FATAL, "edgenet", &env));
    CHECK(ort->CreateSessionOptions(&options));
    CHECK(ort->SetIntraOpNumThreads(options, wanted->threads));
    CHECK(ort->SetInterOpNumThreads(options, 1));
    CHECK(ort->SetSessionGraphOptimizationLevel(options, ORT_ALL_OPTIMIZATIONS));
    CHECK(ort->SetSessionLogSeverityLevel(options, ORT_LOG_FATAL));  // errors come as a status anyway
    if (!sums_exactly())
        CHECK(ort->AddSessionConfigEntry(options, "session.x64quantprecision", "1"));
    if (wanted->profile)
        CHECK(ort->EnableProfiling(options, ort_profile_open(wanted->scratch)));
    CHECK(ort->CreateSession(env, wanted->model, options, &state.session));
    return true;
}

static bool read_tensors(void) {
    ort_type *type;
    CHECK(ort->SessionGetInputCount(state.session, &state.input_count));
    CHECK(ort->SessionGetOutputCount(state.session, &state.output_count));
    if (state.input_count < 1 || state.output_count < 1 || state.input_count > MAX_TENSORS ||
        state.output_count > MAX_TENSORS)
        fail(CAUSE_MODEL, "it has %zu inputs and %zu outputs: an image classifier has one of each", state.input_count,
             state.output_count);
    for (size_t i = 0; i < state.input_count; i++) {
        struct tensor *tensor = &state.inputs[i];
        CHECK(ort->SessionGetInputName(state.session, i, state.allocator, &state.input_names[i]));
        CHECK(ort->SessionGetInputTypeInfo(state.session, i, &type));
        tensor->name = state.input_names[i];
        if (!describe(type, tensor, &state.input_types[i]))
            return false;
        if (tensor->rank > 1 && tensor->shape[0] < 1)
            tensor->shape[0] = 1;  // an open batch is run as batch 1, as devices/runtimes/onnx_runtime.py does
        tensor_bytes(tensor, "input");
    }
    return true;
}

static bool bind_outputs(void) {
    for (size_t i = 0; i < state.output_count; i++) {
        char *name;
        CHECK(ort->SessionGetOutputName(state.session, i, state.allocator, &name));
        CHECK(ort->BindOutputToDevice(state.binding, name, state.memory));
    }
    return true;
}

static bool open_model(const struct options *options, bool plain) {
    (void)plain;
    CHECK(ort->GetAllocatorWithDefaultOptions(&state.allocator));
    CHECK(ort->CreateCpuMemoryInfo(ORT_ARENA, ORT_MEMORY_DEFAULT, &state.memory));
    if (!open_session(options) || !read_tensors())
        return false;
    CHECK(ort->CreateIoBinding(state.session, &state.binding));
    return bind_outputs();
}

static bool bind_noise(size_t i) {
    const struct tensor *tensor = &state.inputs[i];
    size_t size = tensor_bytes(tensor, "input");
    ort_value *value;
    void *data = aligned_alloc(64, (size + 63) & ~(size_t)63);
    if (data == NULL)
        fail(CAUSE_DEVICE, "no memory for its input of %zu bytes", size);
    fill_with_noise(data, tensor->element, size);
    CHECK(ort->CreateTensorWithDataAsOrtValue(state.memory, data, size, tensor->shape, (size_t)tensor->rank,
                                              state.input_types[i], &value));
    CHECK(ort->BindInput(state.binding, state.input_names[i], value));
    return true;
}

static void feed(void) {
    for (size_t i = 0; i < state.input_count; i++)
        if (!bind_noise(i))
            fail(CAUSE_MODEL, "%s does not take an input (%s)", state.runtime, state.why);
}

static bool invoke(void) {
    CHECK(ort->RunWithBinding(state.session, NULL, state.binding));
    return true;
}

static bool first_output(struct bytes *bytes) {
    ort_value **values;
    ort_tensor_type *info;
    struct tensor tensor = {.name = "", .rank = 0};
    size_t count, rank;
    int element;
    void *data;
    CHECK(ort->GetBoundOutputValues(state.binding, state.allocator, &values, &count));
    state.first_output = values[0];
    CHECK(ort->GetTensorTypeAndShape(values[0], &info));
    CHECK(ort->GetTensorElementType(info, &element));
    CHECK(ort->GetDimensionsCount(info, &rank));
    if (rank > MAX_RANK)
        fail(CAUSE_MODEL, "its output has %zu dimensions: an image classifier's has two", rank);
    CHECK(ort->GetDimensions(info, tensor.shape, rank));
    ort->ReleaseTensorTypeAndShapeInfo(info);
    tensor.rank = (int)rank;
    tensor.element = element_of(element);
    CHECK(ort->GetTensorMutableData(values[0], &data));
    *bytes = (struct bytes){data, tensor_bytes(&tensor, "output")};
    return true;  // the values stay: this is called twice in a process
}

static struct bytes output(void) {
    struct bytes bytes;
    if (!first_output(&bytes))
        fail(CAUSE_MODEL, "%s gives no output (%s)", state.runtime, state.why);
    return bytes;
}

static void profile_start(int64_t earlier) { state.earlier = earlier; }
static void profile_take(void) {}

static bool end_profiling(char **path) {
    CHECK(ort->SessionEndProfiling(state.session, state.allocator, path));
    return true;
}

static void profile_report(int64_t runs) {
    char *path;
    if (!end_profiling(&path))
        fail(CAUSE_RUNTIME, "%s gives no operator times (%s)", state.runtime, state.why);
    ort_profile_read(path, state.earlier);
    operators_report(runs);
}

static const char *runtime(void) { return state.runtime; }
static const char *delegate(void) { return "CPUExecutionProvider"; }
static const char *why(void) { return state.why; }

const struct engine ort_engine = {
    .load = load,
    .open = open_model,
    .feed = feed,
    .invoke = invoke,
    .output = output,
    .profile_start = profile_start,
    .profile_take = profile_take,
    .profile_report = profile_report,
    .runtime = runtime,
    .delegate = delegate,
    .why = why,
    .has_plain = false,
};
