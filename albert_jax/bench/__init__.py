"""The machine at hand, measured: steps, input, and what a budget of hours buys on it."""
