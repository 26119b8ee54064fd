"""The doors: what clients see over HTTP."""
