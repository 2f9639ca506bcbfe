"""The settings that each command reads."""

KEYS = {
    "search": ("supernet", "task", "tactic", "algorithm", "predictor", "evaluator", "hardware", "objectives", "constraints",
               "references", "evaluations", "minutes", "seed", "run", "archive", "warm_start",
               "space_reduction", "distributed", "experiment", "debug"),
    "evaluate": ("supernet", "task", "evaluator", "seed", "experiment", "debug"),
    "extract": ("supernet", "task", "evaluator", "hardware", "seed", "experiment"),
    "latency": ("supernet", "hardware", "seed"),
    "import": ("supernet",),
    "import-results": ("supernet",),
    "train": ("supernet", "subnet", "task", "trainer", "evaluator", "seed", "run", "experiment", "debug"),
}  # fmt: skip
