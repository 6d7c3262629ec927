#include "timing.h"

#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "report.h"

#define MOST_SAMPLES (1 << 22)  // 32 MB

void invoke_or_fail(const struct engine *engine) {
    if (!engine->invoke())
        fail(CAUSE_MODEL, "%s fails on it (%s)", engine->runtime(), engine->why());
}

static int64_t in_ns(double seconds) { return (int64_t)(seconds * 1e9); }

int64_t warm_up(const struct engine *engine, const struct options *options, int64_t *mean_ns) {
    const int64_t start = now_ns();
    const int64_t enough = start + in_ns(options->warmup_s), cap = start + in_ns(options->cap_s);
    int64_t runs = 0, now = start;
    while (runs < options->warmup_runs || now < enough) {
        invoke_or_fail(engine);
        runs++;
        now = now_ns();
        if (now > cap)
            break;
    }
    *mean_ns = runs > 0 ? (now - start) / runs : 0;
    return runs;
}

struct samples reserve_samples(const struct options *options, int64_t mean_ns) {
    // Twice what the warm-up lets expect: a processor may yet clock up.
    double wanted = 2 * options->duration_s * 1e9 / (double)(mean_ns > 100 ? mean_ns : 100) + 4096;
    if (wanted < (double)options->min_runs)
        wanted = (double)options->min_runs;
    struct samples samples = {.capacity = wanted > MOST_SAMPLES ? MOST_SAMPLES : (int64_t)wanted};
    size_t size = (size_t)samples.capacity * sizeof *samples.ns;
    samples.ns = malloc(size);
    if (samples.ns == NULL)
        fail(CAUSE_DEVICE, "no memory for %lld samples", (long long)samples.capacity);
    memset(samples.ns, 0xff, size);  // its pages are there before the clock runs
    return samples;
}

void measure(const struct engine *engine, const struct options *options, struct samples *samples) {
    const int64_t start = now_ns();
    const int64_t enough = start + in_ns(options->duration_s), cap = start + in_ns(options->cap_s);
    int64_t after;
    do {
        int64_t before = now_ns();
        invoke_or_fail(engine);
        after = now_ns();
        samples->ns[samples->count++] = after - before;
    } while ((after < enough || samples->count < options->min_runs) && after < cap &&
             samples->count < samples->capacity);
}

int64_t profile(const struct engine *engine, const struct options *options) {
    const int64_t start = now_ns();
    const int64_t enough = start + in_ns(options->duration_s), cap = start + in_ns(options->cap_s);
    int64_t runs = 0, now;
    do {
        invoke_or_fail(engine);
        engine->profile_take();
        runs++;
        now = now_ns();
    } while ((now < enough || runs < options->min_runs) && now < cap);
    return runs;
}
