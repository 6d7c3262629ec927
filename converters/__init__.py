"""A Keras model in, a model file out. Imports neither edgenet nor devices."""
