"""Measured comparisons; their committed results stand in `results/`."""
