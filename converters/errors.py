"""What can go wrong while a Keras model becomes a model file."""


class ConverterError(Exception):
    """A conversion failed; the message is one line that says what is wrong and what to do."""
