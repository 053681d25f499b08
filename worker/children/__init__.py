"""Child processes of workers: what loads torch, and what every child needs to speak and to end."""
