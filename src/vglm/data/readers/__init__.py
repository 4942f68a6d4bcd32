"""One small module per file format; each turns a file into a list of `Sample` and names every row that it cannot."""
