#define _GNU_SOURCE
#include "litert_profile.h"

#include <stdlib.h>
#include <string.h>

#include "operators.h"
#include "report.h"

static lrt_profiler profiler;
static struct lrt_event *events;
static int capacity;

bool litert_profile_open(lrt_compiled compiled) {
    if (lrt.LiteRtCompiledModelGetProfiler(compiled, &profiler) != 0 || profiler == NULL)
        fail(CAUSE_RUNTIME, "LiteRT gives no profiler for this model");
    return true;
}

static void restart(void) {
    if (lrt.LiteRtResetProfiler(profiler) != 0 || lrt.LiteRtStartProfiler(profiler) != 0)
        fail(CAUSE_RUNTIME, "LiteRT's profiler cannot be started");
}

void litert_profile_start(int64_t earlier) {
    (void)earlier;  // they were not recorded
    restart();
}

// Is it one of our operators, and not the delegate that holds them, nor the inference as a whole?
static bool is_operator(const struct lrt_event *event) {
    if (event->type == LRT_DELEGATE_OPERATOR)
        return true;
    return event->type == LRT_OPERATOR && strcasestr(event->tag, "delegate") == NULL;
}

void litert_profile_take(void) {
    int count = 0;
    if (lrt.LiteRtStopProfiler(profiler) != 0 || lrt.LiteRtGetNumProfilerEvents(profiler, &count) != 0)
        fail(CAUSE_RUNTIME, "LiteRT's profiler gives no events");
    if (count > capacity) {
        capacity = count;
        events = realloc(events, (size_t)capacity * sizeof *events);
        if (events == NULL)
            fail(CAUSE_DEVICE, "no memory for %d profiler events", count);
    }
    if (count > 0 && lrt.LiteRtGetProfilerEvents(profiler, count, events) != 0)
        fail(CAUSE_RUNTIME, "LiteRT's profiler gives no events");
    for (int i = 0; i < count; i++) {
        const struct lrt_event *event = &events[i];
        const char *delegate = event->type == LRT_DELEGATE_OPERATOR ? "XNNPACK" : "";
        if (event->tag != NULL && is_operator(event))
            operator_add(event->tag, delegate, event->node, event->subgraph, event->elapsed_us);
    }
    restart();
}

void litert_profile_report(int64_t runs) { operators_report(runs); }
