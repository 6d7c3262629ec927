"""Machines that run a model file. Imports neither edgenet nor converters."""
