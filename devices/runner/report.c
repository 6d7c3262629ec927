#include "report.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <unistd.h>

static FILE *stream;

void report_open(void) {
    int kept = dup(STDOUT_FILENO);
    if (kept < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
        kept = STDOUT_FILENO;  // no stderr: then there is nothing to keep apart
    stream = fdopen(kept, "w");
    if (stream == NULL)
        _exit(2);
}

FILE *report_stream(void) { return stream; }

void report_end(void) {
    if (fputc('\n', stream) == EOF || fflush(stream) == EOF)
        _exit(2);  // nobody listens any more
}

// Bytes of the UTF-8 sequence at `at` (2..4), or 0 where it is none: names in a broken file can hold anything.
static int utf8_length(const unsigned char *at) {
    int length = 0;
    if (at[0] >= 0xc2 && at[0] <= 0xdf)
        length = 2;
    else if ((at[0] & 0xf0) == 0xe0)
        length = 3;
    else if (at[0] >= 0xf0 && at[0] <= 0xf4)
        length = 4;
    for (int i = 1; i < length; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    bool overlong = (at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xf0 && at[1] < 0x90);
    bool outside = (at[0] == 0xed && at[1] > 0x9f) || (at[0] == 0xf4 && at[1] > 0x8f);
    return overlong || outside ? 0 : length;
}

void report_text(const char *text) {
    const unsigned char *at = (const unsigned char *)text;
    fputc('"', stream);
    while (*at != '\0') {
        int length = *at >= 0x80 ? utf8_length(at) : 1;
        if (length == 0)
            fputs("\\ufffd", stream);
        else if (*at == '"' || *at == '\\')
            fprintf(stream, "\\%c", *at);
        else if (*at < 0x20 || *at == 0x7f)
            fprintf(stream, "\\u%04x", *at);
        else
            fwrite(at, 1, (size_t)length, stream);
        at += length > 0 ? length : 1;
    }
    fputc('"', stream);
}

void report_numbers(const int64_t *values, int count) {
    fputc('[', stream);
    for (int i = 0; i < count; i++) {
        if (i > 0)
            fputc(',', stream);
        if (values[i] < 0)
            fputs("null", stream);
        else
            fprintf(stream, "%" PRId64, values[i]);
    }
    fputc(']', stream);
}

void fail(enum cause cause, const char *format, ...) {
    static const char *const names[] = {"usage", "runtime", "model", "device"};
    char message[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (stream == NULL)
        report_open();
    fprintf(stream, "{\"kind\":\"error\",\"cause\":\"%s\",\"message\":", names[cause]);
    report_text(message);
    fputc('}', stream);
    report_end();
    _exit(2);  // not exit(): a library that failed must not be asked to tidy up
}
