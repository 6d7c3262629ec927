#define _GNU_SOURCE
#include "ort_profile.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "operators.h"
#include "report.h"

static char folder[4096], prefix[4096 + 16];

const char *ort_profile_open(const char *scratch) {
    snprintf(folder, sizeof folder, "%s/edgenet-trace-XXXXXX", scratch);
    if (mkdtemp(folder) == NULL)
        fail(CAUSE_DEVICE, "no folder can be made in %s for the operators' times (%s)", scratch, strerror(errno));
    snprintf(prefix, sizeof prefix, "%s/trace", folder);
    return prefix;
}

// Copy the text between quotes after `"key" :`, its escapes as they are; false where the line has none.
static bool text_of(const char *line, const char *key, char *text, size_t size) {
    const char *at = strstr(line, key);
    if (at == NULL || (at = strchr(at + strlen(key), '"')) == NULL)
        return false;
    size_t used = 0;
    for (at++; *at != '\0' && *at != '"' && used + 2 < size; at++) {
        if (*at == '\\' && at[1] != '\0')
            text[used++] = *at++;
        text[used++] = *at;
    }
    text[used] = '\0';
    return true;
}

// One event lies on one line: a node's has "cat" "Node", and a name that ends in _kernel_time.
static void read_line(const char *line) {
    static const char ending[] = "_kernel_time";
    char name[1024], kind[256], provider[256];
    long long us;
    const char *duration = strstr(line, "\"dur\" :");
    if (duration == NULL || sscanf(duration, "\"dur\" :%lld", &us) != 1 || us < 0)
        return;
    if (strstr(line, "\"cat\" : \"Node\"") == NULL || !text_of(line, "\"name\" :", name, sizeof name))
        return;
    size_t length = strlen(name), tail = strlen(ending);
    if (length < tail || strcmp(name + length - tail, ending) != 0)
        return;
    name[length - tail] = '\0';
    if (!text_of(line, "\"op_name\" :", kind, sizeof kind) ||
        !text_of(line, "\"provider\" :", provider, sizeof provider))
        return;
    char full[1024 + 256 + 4];
    snprintf(full, sizeof full, "%s %s", kind, name);
    const char *delegate = strcmp(provider, "CPUExecutionProvider") == 0 ? "CPUExecutionProvider" : "other";
    operator_add(full, delegate, 0, 0, (uint64_t)us);
}

void ort_profile_read(const char *path, int64_t earlier) {
    FILE *file = fopen(path, "re");
    char *line = NULL;
    size_t room = 0;
    int64_t runs = 0;
    if (file == NULL)
        fail(CAUSE_DEVICE, "ONNX Runtime wrote no operator times (%s)", strerror(errno));
    while (getline(&line, &room, file) > 0) {
        if (runs >= earlier)
            read_line(line);
        if (strstr(line, "\"name\" :\"model_run\"") != NULL)
            runs++;
    }
    free(line);
    fclose(file);
    unlink(path);
    rmdir(folder);
}
