// Operator times from LiteRT's own profiler.
#ifndef EDGENET_LITERT_PROFILE_H
#define EDGENET_LITERT_PROFILE_H

#include <stdbool.h>
#include <stdint.h>

#include "litert_api.h"

// Take the profiler of a model that was compiled with profiling; ends the process where there is none.
bool litert_profile_open(lrt_compiled compiled);

// See struct engine.
void litert_profile_start(int64_t earlier);
void litert_profile_take(void);
void litert_profile_report(int64_t runs);

#endif
