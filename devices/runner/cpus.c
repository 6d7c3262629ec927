#define _GNU_SOURCE
#include "cpus.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "report.h"

static bool read_cpu(const char **at, long *cpu) {
    char *end;
    if (**at < '0' || **at > '9')
        return false;
    *cpu = strtol(*at, &end, 10);
    *at = end;
    return *cpu < CPU_SETSIZE;
}

// Read "4-7" or "4", and step behind it.
static bool add_range(const char **at, cpu_set_t *set) {
    long first, last;
    if (!read_cpu(at, &first))
        return false;
    last = first;
    if (**at == '-') {
        ++*at;
        if (!read_cpu(at, &last))
            return false;
    }
    for (long cpu = first; cpu <= last; cpu++)
        CPU_SET((int)cpu, set);
    return first <= last;
}

static bool read_list(const char *at, cpu_set_t *set) {
    CPU_ZERO(set);
    while (add_range(&at, set)) {
        if (*at == '\0')
            return true;
        if (*at++ != ',')
            return false;
    }
    return false;
}

void use_cpus(const char *list) {
    cpu_set_t wanted, given;
    if (!read_list(list, &wanted))
        fail(CAUSE_USAGE, "--cpus takes a list as 4-7 or 0,2, not %s", list);
    if (sched_setaffinity(0, sizeof wanted, &wanted) != 0)
        fail(CAUSE_DEVICE, "the process cannot be confined to the processors %s (%s): are they all there and on?", list,
             strerror(errno));
    // The kernel silently leaves out processors that are missing or off.
    if (sched_getaffinity(0, sizeof given, &given) != 0 || !CPU_EQUAL(&wanted, &given))
        fail(CAUSE_DEVICE, "not all of the processors %s can be used: are they all there and on?", list);
}

void cpus_in_force(char *text, size_t size) {
    cpu_set_t set;
    size_t used = 0;
    text[0] = '\0';
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return;
    for (int first = 0; first < CPU_SETSIZE; first++) {
        if (!CPU_ISSET(first, &set))
            continue;
        int last = first;
        while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, &set))
            last++;
        const char *comma = used > 0 ? "," : "";
        int written = last > first ? snprintf(text + used, size - used, "%s%d-%d", comma, first, last)
                                   : snprintf(text + used, size - used, "%s%d", comma, first);
        if (written < 0 || (size_t)written >= size - used) {
            text[used] = '\0';
            return;
        }
        used += (size_t)written;
        first = last;
    }
}

int first_cpu_in_force(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
            if (CPU_ISSET(cpu, &set))
                return cpu;
    return 0;
}
