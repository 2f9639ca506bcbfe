"""What networks cost: exact tables of multiply-accumulates and parameters."""
