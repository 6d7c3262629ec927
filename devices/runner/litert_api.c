#include "litert_api.h"

#include <stdio.h>

struct litert_api lrt;

// litert/c/litert_common.h: LiteRtStatus.
const char *lrt_status(int status) {
    static char number[32];
    switch (status) {
        case 1: return "invalid argument";
        case 2: return "out of memory";
        case 3: return "runtime failure";
        case 4: return "missing input tensor";
        case 5: return "unsupported";
        case 6: return "not found";
        case 8: return "wrong version";
        case 500: return "the file cannot be read";
        case 501: return "no valid flatbuffer";
        case 503: return "serialization";
        case 504: return "compilation failed";
        case 1000: return "index out of bounds";
        case 1001: return "invalid type";
        case 1002: return "invalid graph";
        default: snprintf(number, sizeof number, "status %d", status); return number;
    }
}
