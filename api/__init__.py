"""The HTTP interface; no torch."""
