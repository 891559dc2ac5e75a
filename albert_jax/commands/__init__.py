"""The commands of the command line; each module imports what its command needs when it runs."""
