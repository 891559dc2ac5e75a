"""`python -m albert_jax` is the console command."""

import sys

from albert_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
