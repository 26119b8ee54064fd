"""One tree of packages and its metadata."""
