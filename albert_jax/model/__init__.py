"""The network: pure functions of nested dicts of parameters, the most important in albert.py."""
