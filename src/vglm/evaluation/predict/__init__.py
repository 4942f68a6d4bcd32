"""Ask every arm its questions, and keep the answers."""
