// edgenet-runner: times one model file in one process and says what it saw, a JSON object a line.
//
// It needs no Python and no library but libc and the one it opens, so that it runs on a Raspberry Pi and on a phone.
// devices/native/runner.py starts it and reads its lines; the command line is in options.c.
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "clock.h"
#include "cpus.h"
#include "engine.h"
#include "report.h"
#include "state.h"
#include "timing.h"

#define SAMPLES_A_LINE 4096
#define WRITTEN_BYTES (256 << 20)  // what a profiler or a babbling library may write

static void limit(int what, rlim_t most) {
    struct rlimit given;
    if (getrlimit(what, &given) != 0)
        return;
    if (given.rlim_max != RLIM_INFINITY && given.rlim_max < most)
        most = given.rlim_max;
    given.rlim_cur = most;
    setrlimit(what, &given);
}

// A broken file can ask for petabytes, crash, or never end: let it die alone.
static void set_limits(const struct options *options) {
    struct stat file;
    if (stat(options->model, &file) != 0 || !S_ISREG(file.st_mode))
        fail(CAUSE_MODEL, "there is no such file on the device");
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_FSIZE, WRITTEN_BYTES);
    limit(RLIMIT_AS, ((rlim_t)8 << 30) + 20 * (rlim_t)file.st_size);
    double whole = (double)(int64_t)options->timeout_s;
    struct itimerval timer = {.it_value = {(time_t)whole, (suseconds_t)((options->timeout_s - whole) * 1e6)}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

struct opened {
    double lib_ms, load_ms, first_ms;
    uint64_t hash;
    char note[256];  // why the delegate was left out, else ""
};

static bool open_once(const struct engine *engine, const struct options *options, bool plain, struct opened *opened) {
    int64_t start = now_ns();
    if (!engine->open(options, plain))
        return false;
    int64_t loaded = now_ns();
    engine->feed();
    int64_t first = now_ns();
    if (!engine->invoke())
        return false;
    opened->first_ms = (double)(now_ns() - first) / 1e6;
    opened->load_ms = (double)(loaded - start) / 1e6;
    return true;
}

static struct opened open_model(const struct engine *engine, const struct options *options) {
    struct opened opened = {0};
    int64_t start = now_ns();
    engine->load(options->lib);
    opened.lib_ms = (double)(now_ns() - start) / 1e6;
    if (!open_once(engine, options, false, &opened)) {
        snprintf(opened.note, sizeof opened.note, "%s", engine->why());
        if (!engine->has_plain || !open_once(engine, options, true, &opened))
            fail(CAUSE_MODEL, "%s refuses it (%s)", engine->runtime(), engine->why());
    }
    opened.hash = fnv1a(engine->output());
    return opened;
}

static void report_model(const struct engine *engine, const struct opened *opened) {
    FILE *out = report_stream();
    fputs("{\"kind\":\"model\",\"runtime\":", out);
    report_text(engine->runtime());
    fputs(",\"delegate\":", out);
    report_text(engine->delegate());
    fputs(",\"delegate_note\":", out);
    report_text(opened->note);
    fprintf(out, ",\"lib_ms\":%.3f,\"load_ms\":%.3f,\"first_ms\":%.3f,\"output_hash\":\"%016" PRIx64 "\"}",
            opened->lib_ms, opened->load_ms, opened->first_ms, opened->hash);
    report_end();
}

static void report_samples(const struct samples *samples) {
    FILE *out = report_stream();
    for (int64_t from = 0; from < samples->count; from += SAMPLES_A_LINE) {
        int64_t left = samples->count - from;
        fputs("{\"kind\":\"samples\",\"ns\":", out);
        report_numbers(samples->ns + from, (int)(left < SAMPLES_A_LINE ? left : SAMPLES_A_LINE));
        fputc('}', out);
        report_end();
    }
}

static void report_last(int64_t warmup_runs) {
    FILE *out = report_stream();
    char cpus[1024];
    cpus_in_force(cpus, sizeof cpus);
    fprintf(out, "{\"kind\":\"end\",\"warmup_runs\":%" PRId64 ",\"peak_rss_bytes\":%" PRId64 ",\"cpus\":\"%s\"}",
            warmup_runs, peak_rss_bytes(), cpus);
    report_end();
}

static void run(const struct engine *engine, const struct options *options) {
    report_state("start");
    struct opened opened = open_model(engine, options);
    report_model(engine, &opened);
    int64_t mean_ns, runs = 0;
    int64_t warmed = warm_up(engine, options, &mean_ns);
    struct samples samples = {0};
    if (!options->profile)
        samples = reserve_samples(options, warmed > 0 ? mean_ns : (int64_t)(opened.first_ms * 1e6));
    report_state("warm");
    invoke_or_fail(engine);  // reading the state cooled the caches
    warmed++;
    if (options->profile) {
        engine->profile_start(warmed + 1);
        runs = profile(engine, options);
    } else {
        measure(engine, options, &samples);
    }
    report_state("end");
    if (fnv1a(engine->output()) != opened.hash)
        fail(CAUSE_MODEL, "its last answer differs from its first to the same input: its times mean nothing");
    report_samples(&samples);
    if (options->profile)
        engine->profile_report(runs);
    report_last(warmed);
}

int main(int argc, char **argv) {
    report_open();
    struct options options = parse_options(argc, argv);
    set_limits(&options);
    if (options.cpus != NULL)
        use_cpus(options.cpus);
    choose_zones(options.zones);
    run(strcmp(options.engine, "ort") == 0 ? &ort_engine : &litert_engine, &options);
    _exit(0);  // not exit(): tearing a runtime down can hang, and nothing of it matters here
}
