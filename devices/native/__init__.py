"""The native runner on a device that has no Python: what it is made of, where it lies, how it is started and read."""
