"""Costs of networks on hardware: exact tables (multiply-accumulates, memory…), measured and estimated latencies, energy."""
