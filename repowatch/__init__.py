"""repowatch: watches, indexes and serves trees of RPM packages."""

__version__ = "0.1.0"
