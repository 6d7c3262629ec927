// Which processors the process and all its threads may use.
#ifndef EDGENET_CPUS_H
#define EDGENET_CPUS_H

#include <stddef.h>

// Confine the process to a list as "4-7" or "0,2"; called before any library starts its threads.
void use_cpus(const char *list);

// Write the list in force into text, as "0-3,6".
void cpus_in_force(char *text, size_t size);

// The first of them, 0 where the kernel does not tell.
int first_cpu_in_force(void);

#endif
