"""How the service holds under load and under faults, measured on its real processes."""
