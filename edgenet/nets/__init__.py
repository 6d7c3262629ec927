"""The block tables built as Keras models; weights; the models users bring."""
