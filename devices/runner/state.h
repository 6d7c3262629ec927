// The device's state: temperatures, frequencies, the Raspberry Pi's throttle bits, and what memory we took.
#ifndef EDGENET_STATE_H
#define EDGENET_STATE_H

#include <stdint.h>

// Read those thermal zones whose type matches an extended regular expression; all where none does. A phone has dozens,
// some of them slow: what is read between the warm-up and the measuring must be quick.
void choose_zones(const char *pattern);

// Write a state line. at: "start", "warm" or "end". Never called inside a timed section.
void report_state(const char *at);

// The most memory that this process ever had resident, in bytes; 0 where the kernel does not tell.
int64_t peak_rss_bytes(void);

#endif
