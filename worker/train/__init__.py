"""The train worker: claims jobs, keeps one trainer process for each, and publishes what it made."""
