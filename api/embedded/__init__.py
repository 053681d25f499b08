"""The whole service on one machine: a process that starts the others and keeps them alive."""
