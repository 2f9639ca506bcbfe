"""Sub-networks on their own: extracted, re-calibrated, verified, written and exported."""
