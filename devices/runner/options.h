// The command line.
#ifndef EDGENET_OPTIONS_H
#define EDGENET_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

struct options {
    const char *engine;   // "litert" or "ort"
    const char *lib;      // the engine's shared library
    const char *model;    // the model file
    const char *cpus;     // "4-7", "0,2"; NULL: as the process was started
    const char *zones;    // what the processor's thermal zones are called: a regular expression
    const char *scratch;  // folder for what a profiler writes
    int threads;
    double warmup_s;
    int64_t warmup_runs;
    double duration_s;
    int64_t min_runs;
    double cap_s;      // of the warm-up, and of the measuring
    double timeout_s;  // of the whole process; 0: none
    bool profile;      // operator times in place of samples
};

// Read argv; whatever is wrong ends the process with one error line.
struct options parse_options(int argc, char **argv);

#endif
