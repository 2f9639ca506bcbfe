"""Formats of Once-for-All: the names of its published weights, and its lists that describe an architecture."""
