"""Deployment of sub-networks: extraction, re-calibration, verification, writing and export."""
