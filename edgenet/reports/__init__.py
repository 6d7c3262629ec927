"""Results -> tables for the terminal and documents for --json. No measuring, no files."""
