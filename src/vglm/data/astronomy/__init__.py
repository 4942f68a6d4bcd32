"""Variable stars: their light curves, files, pictures and questions."""
