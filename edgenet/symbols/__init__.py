"""The embedded default: a small trained classifier of printable symbols, its generated images and its cards."""
