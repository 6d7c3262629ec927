"""Which int8 form of a network is written: ways to make one, tried in the simulator, judged on images held back."""
