"""Answer questions live: one engine, and the terminal, web page and HTTP interface that are thin faces on it."""
