"""The verbs of the console command; each imports its stage when it runs."""
