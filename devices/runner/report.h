// What the runner says: one JSON object a line, on the stdout it was started with.
#ifndef EDGENET_REPORT_H
#define EDGENET_REPORT_H

#include <stdint.h>
#include <stdio.h>

// Who has to do something about an error.
enum cause {
    CAUSE_USAGE,    // the command line
    CAUSE_RUNTIME,  // the library is missing, or another one than we know
    CAUSE_MODEL,    // the file
    CAUSE_DEVICE,   // the machine
};

// Keep stdout to ourselves: what a library prints there goes to stderr from now on.
void report_open(void);

// The stream; whoever writes a line ends it with report_end().
FILE *report_stream(void);
void report_end(void);

// Write a string between quotes, with what JSON forbids in it escaped.
void report_text(const char *text);

// Write an array of numbers; a negative one is written as null: unreadable.
void report_numbers(const int64_t *values, int count);

// Write an error line and end the process at once, with status 2.
_Noreturn void fail(enum cause cause, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
