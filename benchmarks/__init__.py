"""What one more package costs, side by side with the peers: `python -m benchmarks`."""
