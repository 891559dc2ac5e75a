"""Plans of runs on a slice, from programs compiled without having the slice."""
