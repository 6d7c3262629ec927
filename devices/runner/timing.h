// The clock around a bare inference, as devices/runtimes/timing.py:time_session has it.
#ifndef EDGENET_TIMING_H
#define EDGENET_TIMING_H

#include <stdint.h>

#include "engine.h"
#include "options.h"

struct samples {
    int64_t *ns;
    int64_t count, capacity;
};

// Run once; ends the process with a line where the library fails.
void invoke_or_fail(const struct engine *engine);

// Run until both warmup_s and warmup_runs are reached, or cap_s: how often it ran.
int64_t warm_up(const struct engine *engine, const struct options *options, int64_t *mean_ns);

// Reserve room for the samples of an inference that lasts mean_ns, so that nothing is allocated while it is timed.
struct samples reserve_samples(const struct options *options, int64_t mean_ns);

// Time inferences until both duration_s and min_runs are reached, or cap_s.
void measure(const struct engine *engine, const struct options *options, struct samples *samples);

// Record operators for as long as measure() would take: of how many inferences.
int64_t profile(const struct engine *engine, const struct options *options);

#endif
