"""What is true on paper: no clock, no disk, no thread."""
