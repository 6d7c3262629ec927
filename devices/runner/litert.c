// LiteRT: its CompiledModel on the CPU, with XNNPACK as its Python interpreter has it by default.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "litert_api.h"
#include "litert_profile.h"
#include "report.h"

static struct {
    lrt_environment environment;
    lrt_model model;
    lrt_compiled compiled;
    lrt_signature signature;
    size_t signature_index;
    size_t input_count, output_count, first_output;
    struct lrt_type input_types[MAX_TENSORS], output_types[MAX_TENSORS];
    lrt_buffer inputs[MAX_TENSORS], outputs[MAX_TENSORS];
    bool plain;
    char why[256];
} state;

// Keep which function failed, of the call's text "lrt.Name(arguments)", and how.
static void note_failure(const char *call, int status) {
    const char *name = call + strlen("lrt.");
    snprintf(state.why, sizeof state.why, "%.*s: %s", (int)strcspn(name, "("), name, lrt_status(status));
}

// Leave the enclosing function with false where a call fails.
#define CHECK(call)                        \
    do {                                   \
        int status_ = (call);              \
        if (status_ != 0) {                \
            note_failure(#call, status_);  \
            return false;                  \
        }                                  \
    } while (0)

static void load(const char *lib) {
    void *library = dlopen(lib, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        fail(CAUSE_RUNTIME, "LiteRT cannot be opened: %s", dlerror());
#define LOOK_UP(name, ...)                           \
    *(void **)(&lrt.name) = dlsym(library, #name);   \
    if (lrt.name == NULL)                            \
        fail(CAUSE_RUNTIME, "%s has no " #name ": it is not LiteRT 2.3", lib);
    LITERT_FUNCTIONS(LOOK_UP)
#undef LOOK_UP
}

// litert/c/litert_model_types.h: LiteRtElementType.
static enum element element_of(int type) {
    switch (type) {
        case 1: return FLOAT32;
        case 2: return INT32;
        case 3: return UINT8;
        case 4: return INT64;
        case 6: return BOOL;
        case 7: return INT16;
        case 9: return INT8;
        case 10: return FLOAT16;
        case 11: return FLOAT64;
        case 13: return UINT64;
        case 16: return UINT32;
        case 17: return UINT16;
        default: return BAD_ELEMENT;
    }
}

// Learn a tensor's type, and refuse what no image classifier has before anything is allocated for it.
static bool read_type(lrt_tensor tensor, const char *what, struct lrt_type *type) {
    struct tensor described = {.name = ""};
    CHECK(lrt.LiteRtGetRankedTensorType(tensor, type));
    CHECK(lrt.LiteRtGetTensorName(tensor, &described.name));
    if (type->layout.rank > MAX_RANK)
        fail(CAUSE_MODEL, "its %s '%.40s' has %u dimensions: the file is corrupt", what, described.name,
             (unsigned)type->layout.rank);
    described.element = element_of(type->element);
    described.rank = (int)type->layout.rank;
    for (int i = 0; i < described.rank; i++)
        described.shape[i] = type->layout.dimensions[i];
    tensor_bytes(&described, what);
    return true;
}

// Find the signature of the main graph: the one that LiteRT's interpreter runs.
static bool find_signature(void) {
    size_t main_index, count;
    lrt_subgraph main_graph, graph;
    CHECK(lrt.LiteRtGetMainModelSubgraphIndex(state.model, &main_index));
    CHECK(lrt.LiteRtGetModelSubgraph(state.model, main_index, &main_graph));
    CHECK(lrt.LiteRtGetNumModelSignatures(state.model, &count));
    for (size_t i = 0; i < count; i++) {
        CHECK(lrt.LiteRtGetModelSignature(state.model, i, &state.signature));
        CHECK(lrt.LiteRtGetSignatureSubgraph(state.signature, &graph));
        state.signature_index = i;
        if (graph == main_graph)
            break;
    }
    CHECK(lrt.LiteRtGetNumSignatureInputs(state.signature, &state.input_count));
    CHECK(lrt.LiteRtGetNumSignatureOutputs(state.signature, &state.output_count));
    if (state.input_count < 1 || state.output_count < 1 || state.input_count > MAX_TENSORS ||
        state.output_count > MAX_TENSORS)
        fail(CAUSE_MODEL, "it has %zu inputs and %zu outputs: an image classifier has one of each", state.input_count,
             state.output_count);
    return true;
}

static bool read_tensors(void) {
    lrt_subgraph graph;
    lrt_tensor tensor;
    uint32_t wanted, index;
    for (size_t i = 0; i < state.input_count; i++) {
        CHECK(lrt.LiteRtGetSignatureInputTensorByIndex(state.signature, i, &tensor));
        if (!read_type(tensor, "input", &state.input_types[i]))
            return false;
    }
    CHECK(lrt.LiteRtGetSignatureSubgraph(state.signature, &graph));
    CHECK(lrt.LiteRtGetSubgraphOutput(graph, 0, &tensor));
    CHECK(lrt.LiteRtGetTensorIndex(tensor, &wanted));
    for (size_t i = 0; i < state.output_count; i++) {  // a signature may list them in another order than the graph
        CHECK(lrt.LiteRtGetSignatureOutputTensorByIndex(state.signature, i, &tensor));
        if (!read_type(tensor, "output", &state.output_types[i]))
            return false;
        CHECK(lrt.LiteRtGetTensorIndex(tensor, &index));
        if (index == wanted)
            state.first_output = i;
    }
    return true;
}

static bool add_options(lrt_options options, const char *name, const char *toml) {
    lrt_opaque opaque;
    char *payload = strdup(toml);  // LiteRT frees it
    CHECK(lrt.LiteRtCreateOpaqueOptions(name, payload, free, &opaque));
    CHECK(lrt.LiteRtAddOpaqueOptions(options, opaque));
    return true;
}

static bool compile(const struct options *wanted, bool plain) {
    lrt_options options;
    char toml[64];
    CHECK(lrt.LiteRtCreateOptions(&options));
    CHECK(lrt.LiteRtSetOptionsHardwareAccelerators(options, LRT_CPU));
    snprintf(toml, sizeof toml, "num_threads = %d\n%s", wanted->threads, plain ? "kernel_mode = \"builtin\"\n" : "");
    if (!add_options(options, "xnnpack", toml))
        return false;
    if (wanted->profile && !add_options(options, "runtime_options_string", "enable_profiling = true\n"))
        return false;
    CHECK(lrt.LiteRtCreateCompiledModel(state.environment, state.model, options, &state.compiled));
    return true;
}

static bool allocate(void) {
    lrt_requirements needs;
    for (size_t i = 0; i < state.input_count; i++) {
        CHECK(lrt.LiteRtGetCompiledModelInputBufferRequirements(state.compiled, state.signature_index, i, &needs));
        CHECK(lrt.LiteRtCreateManagedTensorBufferFromRequirements(state.environment, &state.input_types[i], needs,
                                                                  &state.inputs[i]));
    }
    for (size_t i = 0; i < state.output_count; i++) {
        CHECK(lrt.LiteRtGetCompiledModelOutputBufferRequirements(state.compiled, state.signature_index, i, &needs));
        CHECK(lrt.LiteRtCreateManagedTensorBufferFromRequirements(state.environment, &state.output_types[i], needs,
                                                                  &state.outputs[i]));
    }
    return true;
}

static bool open_model(const struct options *options, bool plain) {
    state.plain = plain;
    if (state.environment == NULL)
        CHECK(lrt.LiteRtCreateEnvironment(0, NULL, &state.environment));
    CHECK(lrt.LiteRtCreateModelFromFile(state.environment, options->model, &state.model));
    if (!find_signature() || !read_tensors() || !compile(options, plain) || !allocate())
        return false;
    return !options->profile || litert_profile_open(state.compiled);
}

// Lock a buffer whose size is as its type says.
static struct bytes lock(lrt_buffer buffer, int mode) {
    struct bytes bytes = {0};
    void *data;
    if (lrt.LiteRtGetTensorBufferPackedSize(buffer, &bytes.size) != 0 ||
        lrt.LiteRtLockTensorBuffer(buffer, &data, mode) != 0)
        fail(CAUSE_RUNTIME, "LiteRT does not give access to a tensor's buffer");
    bytes.data = data;
    return bytes;
}

static void feed(void) {
    for (size_t i = 0; i < state.input_count; i++) {
        struct bytes bytes = lock(state.inputs[i], LRT_WRITE);
        fill_with_noise((void *)bytes.data, element_of(state.input_types[i].element), bytes.size);
        lrt.LiteRtUnlockTensorBuffer(state.inputs[i]);
    }
}

static bool invoke(void) {
    CHECK(lrt.LiteRtRunCompiledModel(state.compiled, state.signature_index, state.input_count, state.inputs,
                                     state.output_count, state.outputs));
    return true;
}

static struct bytes output(void) {
    struct bytes bytes = lock(state.outputs[state.first_output], LRT_READ);
    lrt.LiteRtUnlockTensorBuffer(state.outputs[state.first_output]);  // host memory: it stays where it is
    return bytes;
}

static const char *runtime(void) { return "LiteRT"; }
static const char *delegate(void) { return state.plain ? "none" : "XNNPACK"; }
static const char *why(void) { return state.why; }

const struct engine litert_engine = {
    .load = load,
    .open = open_model,
    .feed = feed,
    .invoke = invoke,
    .output = output,
    .profile_start = litert_profile_start,
    .profile_take = litert_profile_take,
    .profile_report = litert_profile_report,
    .runtime = runtime,
    .delegate = delegate,
    .why = why,
    .has_plain = true,
};
