"""Samples and how they reach the model: readers, divisions, images, the doctor, the collator and its feature cache."""
