#include "options.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"

#define USAGE                                                                                   \
    "edgenet-runner --engine litert|ort --lib LIB --model FILE --threads N [--cpus 4-7] "       \
    "--warmup-s S --warmup-runs N --duration-s S --min-runs N --cap-s S [--timeout-s S] "       \
    "[--zones PATTERN] [--profile] [--scratch FOLDER]"

static double seconds(const char *name, const char *text) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(value) || value < 0 || value > 86400)
        fail(CAUSE_USAGE, "%s takes seconds between 0 and 86400, not %s", name, text);
    return value;
}

static int64_t count(const char *name, const char *text, int64_t low, int64_t high) {
    char *end;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || value < low || value > high)
        fail(CAUSE_USAGE, "%s takes a number between %lld and %lld, not %s", name, (long long)low, (long long)high,
             text);
    return value;
}

static void require(const struct options *options) {
    const char *engine = options->engine;
    if (engine == NULL || (strcmp(engine, "litert") != 0 && strcmp(engine, "ort") != 0))
        fail(CAUSE_USAGE, "--engine is litert or ort: " USAGE);
    if (options->lib == NULL || options->model == NULL)
        fail(CAUSE_USAGE, "--lib and --model are needed: " USAGE);
}

struct options parse_options(int argc, char **argv) {
    struct options options = {
        .zones = "cpu|soc",
        .scratch = "/tmp",
        .threads = 1,
        .warmup_s = 0.5,
        .warmup_runs = 5,
        .duration_s = 1,
        .min_runs = 20,
        .cap_s = 12,
    };
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        if (strcmp(name, "--profile") == 0) {
            options.profile = true;
            continue;
        }
        const char *value = argv[++i];  // argv ends with a NULL
        if (value == NULL)
            fail(CAUSE_USAGE, "%s: unknown, or it lacks its value: " USAGE, name);
        if (strcmp(name, "--engine") == 0)
            options.engine = value;
        else if (strcmp(name, "--lib") == 0)
            options.lib = value;
        else if (strcmp(name, "--model") == 0)
            options.model = value;
        else if (strcmp(name, "--cpus") == 0)
            options.cpus = value;
        else if (strcmp(name, "--zones") == 0)
            options.zones = value;
        else if (strcmp(name, "--scratch") == 0)
            options.scratch = value;
        else if (strcmp(name, "--threads") == 0)
            options.threads = (int)count(name, value, 1, 1024);
        else if (strcmp(name, "--warmup-s") == 0)
            options.warmup_s = seconds(name, value);
        else if (strcmp(name, "--warmup-runs") == 0)
            options.warmup_runs = count(name, value, 0, 1000000000);
        else if (strcmp(name, "--duration-s") == 0)
            options.duration_s = seconds(name, value);
        else if (strcmp(name, "--min-runs") == 0)
            options.min_runs = count(name, value, 1, 1000000000);
        else if (strcmp(name, "--cap-s") == 0)
            options.cap_s = seconds(name, value);
        else if (strcmp(name, "--timeout-s") == 0)
            options.timeout_s = seconds(name, value);
        else
            fail(CAUSE_USAGE, "%s: unknown option: " USAGE, name);
    }
    require(&options);
    return options;
}
