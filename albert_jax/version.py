"""The version: read by the package, by setup.cfg and by whatever records what made a file."""

__version__ = "0.3.0"
