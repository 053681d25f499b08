"""The schema's history, one file per change; the same on SQLite and PostgreSQL."""
