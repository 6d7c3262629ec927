#define _GNU_SOURCE
#include "state.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <regex.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "cpus.h"
#include "report.h"

#define MOST 1024  // zones or processors
#define VCGENCMD_MS 2000

extern char **environ;

static const char thermal[] = "/sys/class/thermal";
static const char cpus[] = "/sys/devices/system/cpu";

static int zones[MOST], zone_count = -1;  // those that are read; -1: not yet chosen

// Read the first line of a file, without its end; "" where it cannot be read.
static const char *read_line(char *text, size_t size, const char *path) {
    FILE *file = fopen(path, "re");
    if (file == NULL || fgets(text, (int)size, file) == NULL)
        text[0] = '\0';
    if (file != NULL)
        fclose(file);
    text[strcspn(text, "\r\n")] = '\0';
    return text;
}

// Read a file of a numbered folder: /sys/class/thermal/thermal_zone0/temp.
static const char *read_numbered(char *text, size_t size, const char *folder, const char *prefix, int i,
                                 const char *file) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s%d/%s", folder, prefix, i, file);
    return read_line(text, size, path);
}

static int64_t number_in(const char *text) {
    char *end;
    long long value = strtoll(text, &end, 10);
    return end != text && *end == '\0' && value >= 0 ? value : -1;
}

// How many entries of a folder are called as prefix and a number: one more than the highest number.
static int numbered(const char *folder, const char *prefix) {
    DIR *entries = opendir(folder);
    int count = 0;
    if (entries == NULL)
        return 0;
    for (struct dirent *entry = readdir(entries); entry != NULL; entry = readdir(entries)) {
        char *end;
        if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0)
            continue;
        const char *digits = entry->d_name + strlen(prefix);
        long number = strtol(digits, &end, 10);
        if (end != digits && *end == '\0' && number >= count && number < MOST)
            count = (int)number + 1;
    }
    closedir(entries);
    return count;
}

void choose_zones(const char *pattern) {
    regex_t called;
    char type[128];
    int found = numbered(thermal, "thermal_zone");
    if (regcomp(&called, pattern, REG_EXTENDED | REG_ICASE | REG_NOSUB) != 0)
        fail(CAUSE_USAGE, "--zones takes an extended regular expression, not %s", pattern);
    zone_count = 0;
    for (int i = 0; i < found; i++)
        if (regexec(&called, read_numbered(type, sizeof type, thermal, "thermal_zone", i, "type"), 0, NULL, 0) == 0)
            zones[zone_count++] = i;
    regfree(&called);
    if (zone_count == 0)  // none is called so: any is better than none
        while (zone_count < found) {
            zones[zone_count] = zone_count;
            zone_count++;
        }
}

static void report_zones(FILE *out) {
    static int64_t temperatures[MOST];
    char text[128];
    for (int i = 0; i < zone_count; i++)
        temperatures[i] = number_in(read_numbered(text, sizeof text, thermal, "thermal_zone", zones[i], "temp"));
    fputs(",\"temp_mc\":", out);
    report_numbers(temperatures, zone_count);
    fputs(",\"zones\":[", out);
    for (int i = 0; i < zone_count; i++) {
        fputs(i > 0 ? "," : "", out);
        report_text(read_numbered(text, sizeof text, thermal, "thermal_zone", zones[i], "type"));
    }
    fputc(']', out);
}

static void report_cpufreq(FILE *out) {
    static int64_t frequencies[MOST];
    char text[128];
    int count = numbered(cpus, "cpu"), first = first_cpu_in_force();
    for (int i = 0; i < count; i++)
        frequencies[i] = number_in(read_numbered(text, sizeof text, cpus, "cpu", i, "cpufreq/scaling_cur_freq"));
    fputs(",\"freq_khz\":", out);
    report_numbers(frequencies, count);
    fputs(",\"governor\":", out);
    report_text(read_numbered(text, sizeof text, cpus, "cpu", first, "cpufreq/scaling_governor"));
    fputs(",\"driver\":", out);
    report_text(read_numbered(text, sizeof text, cpus, "cpu", first, "cpufreq/scaling_driver"));
}

// Read what a child writes until it ends or is late.
static void read_until(int from, char *text, size_t size, int64_t deadline) {
    size_t used = 0;
    while (used + 1 < size) {
        int64_t left_ms = (deadline - now_ns()) / 1000000;
        struct pollfd ready = {.fd = from, .events = POLLIN};
        if (left_ms <= 0 || poll(&ready, 1, (int)left_ms) <= 0)
            break;
        ssize_t got = read(from, text + used, size - 1 - used);
        if (got <= 0)
            break;
        used += (size_t)got;
    }
    text[used] = '\0';
}

// Ask `vcgencmd get_throttled`, which only a Raspberry Pi has; false where it does not answer in time.
static bool ask_throttled(char *vcgencmd, char *bits, size_t size) {
    char answer[128];
    int ends[2];
    pid_t child;
    posix_spawn_file_actions_t actions;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return false;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    char *arguments[] = {vcgencmd, "get_throttled", NULL};
    int failed = posix_spawnp(&child, arguments[0], &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    if (failed) {
        close(ends[0]);
        return false;
    }
    read_until(ends[0], answer, sizeof answer, now_ns() + (int64_t)VCGENCMD_MS * 1000000);
    close(ends[0]);
    kill(child, SIGKILL);  // it has ended, or hangs
    waitpid(child, NULL, 0);
    unsigned long value;
    if (sscanf(answer, "throttled=0x%lx", &value) != 1)
        return false;
    snprintf(bits, size, "0x%lx", value);
    return true;
}

// Old systems of a Raspberry Pi, and a login without them on its PATH, have it elsewhere.
static bool throttled(char *bits, size_t size) {
    return ask_throttled("vcgencmd", bits, size) || ask_throttled("/opt/vc/bin/vcgencmd", bits, size);
}

void report_state(const char *at) {
    FILE *out = report_stream();
    char text[128];
    fprintf(out, "{\"kind\":\"state\",\"at\":\"%s\"", at);
    report_zones(out);
    report_cpufreq(out);
    fputs(",\"loadavg\":", out);
    report_text(read_line(text, sizeof text, "/proc/loadavg"));
    fputs(",\"throttled\":", out);
    if (throttled(text, sizeof text))
        report_text(text);
    else
        fputs("null", out);
    fputc('}', out);
    report_end();
}

int64_t peak_rss_bytes(void) {
    FILE *file = fopen("/proc/self/status", "re");
    char line[256];
    long long kilobytes = 0;
    if (file == NULL)
        return 0;
    while (fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "VmHWM: %lld kB", &kilobytes) == 1)
            break;
    fclose(file);
    return kilobytes > 0 ? kilobytes * 1024 : 0;
}
