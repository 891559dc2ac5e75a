"""Devices and processes: the mesh, the table of shardings, and how processes find each other."""
