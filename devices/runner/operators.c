#include "operators.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"

#define MOST 65536  // operators of one model

struct operator {
    char *name;
    const char *delegate;
    uint64_t node, graph, us;
};

static struct operator operators[MOST];
static int count, last;

static int same(const struct operator *one, const char *name, const char *delegate, uint64_t node, uint64_t graph) {
    return one->node == node && one->graph == graph && strcmp(one->delegate, delegate) == 0 &&
           strcmp(one->name, name) == 0;
}

void operator_add(const char *name, const char *delegate, uint64_t node, uint64_t graph, uint64_t us) {
    for (int step = 1; step <= count; step++) {  // from the one after the last: operators come in turn
        struct operator *one = &operators[(last + step) % count];
        if (same(one, name, delegate, node, graph)) {
            one->us += us;
            last = (last + step) % count;
            return;
        }
    }
    if (count == MOST)
        fail(CAUSE_MODEL, "it has more than %d operators", MOST);
    operators[count] = (struct operator){strdup(name), delegate, node, graph, us};
    if (operators[count].name == NULL)
        fail(CAUSE_DEVICE, "no memory for the operators' names");
    last = count++;
}

void operators_report(int64_t runs) {
    FILE *out = report_stream();
    for (int i = 0; i < count; i++) {
        fputs("{\"kind\":\"op\",\"name\":", out);
        report_text(operators[i].name);
        fprintf(out, ",\"us\":%.3f,\"runs\":%" PRId64 ",\"delegate\":", (double)operators[i].us / (double)runs, runs);
        report_text(operators[i].delegate);
        fputc('}', out);
        report_end();
    }
}
