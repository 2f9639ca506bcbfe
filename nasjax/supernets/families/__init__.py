"""Families of super-networks, one file each."""
