"""What is shown and kept: a window, the terminal, a recording, a log, stills; and what is written over the picture."""
