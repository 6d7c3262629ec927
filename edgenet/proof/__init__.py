"""What a model file answers: does it agree with its float network, and is it right."""
