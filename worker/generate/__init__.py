"""Images and scores on request: one station, and one warm child process for each of its slots."""
