"""Serving: one engine, with the terminal, the web page and the HTTP API as thin clients of it."""
