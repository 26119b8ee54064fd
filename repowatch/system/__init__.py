"""The machine: clock, files, threads."""
