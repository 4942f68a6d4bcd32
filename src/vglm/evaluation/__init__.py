"""From a model and samples to a report: generate, score, compare, show; all but the first step work without torch."""
