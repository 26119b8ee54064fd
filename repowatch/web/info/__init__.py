"""What the daemon tells of itself: pages, JSON, metrics, `.repo` files."""
