"""What a run would need on a slice, from its program compiled without having the slice."""
