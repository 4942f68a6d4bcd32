"""Scores of the answers: metrics, statistics, comparisons."""
