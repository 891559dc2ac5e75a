"""`python -m albert_jax` is the console command."""

from albert_jax.cli import entry

if __name__ == "__main__":
    entry()
