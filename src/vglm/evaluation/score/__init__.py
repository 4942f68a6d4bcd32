"""What the answers are worth: metrics, statistics, comparisons."""
