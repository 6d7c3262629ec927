"""A model file in a Python runtime of this machine: opened in a process of its own, run, timed."""
