"""Live classification: source -> newest frame -> inference -> newest answer -> sinks."""
