"""Generate and store the answers of every arm."""
