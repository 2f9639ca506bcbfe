"""Searches: the loop, the problem that it solves, and what it returns."""
