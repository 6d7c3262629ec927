"""Int8 that keeps its accuracy: a Keras network is corrected and simulated here before a file of it is written."""
