"""What runs jobs and makes images: supervisors, and the child processes that load torch."""
