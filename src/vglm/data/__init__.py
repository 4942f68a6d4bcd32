"""Samples and how they reach the model: readers, splits, images, the collator, and synthetic worlds to learn from."""
