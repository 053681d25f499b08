"""What outlives a process: rows, transitions, objects, live events; no torch, no web."""
