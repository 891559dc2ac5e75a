"""Devices: the mesh, and the one table that says where each parameter lies."""
