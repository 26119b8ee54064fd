"""The doors beside Apache and nginx, in one interleaved run: `python -m benchmarks.doors`."""
