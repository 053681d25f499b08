"""The HTTP interface: requests become rows, rows become answers; no torch."""
