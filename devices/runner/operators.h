// Sums of operator times over inferences, in the order in which the operators first ran.
#ifndef EDGENET_OPERATORS_H
#define EDGENET_OPERATORS_H

#include <stdint.h>

// Add one execution of an operator. Two with the same name, delegate and numbers are one operator.
void operator_add(const char *name, const char *delegate, uint64_t node, uint64_t graph, uint64_t us);

// Write an op line each: mean microseconds an inference.
void operators_report(int64_t runs);

#endif
