"""The package: built, installed, booted, used, broken, upgraded and removed."""
