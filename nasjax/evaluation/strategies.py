"""Every evaluation strategy by name, and settings of evaluators that choose one of them."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

from nasjax.evaluation.masked import MaskedConfig
from nasjax.evaluation.population import EvaluatorConfig, StrategyConfig
from nasjax.evaluation.prefix import PrefixConfig
from nasjax.evaluation.switch import SwitchConfig

STRATEGIES: Mapping[str, type[StrategyConfig]] = MappingProxyType(
    {"masked": MaskedConfig, "switch": SwitchConfig, "prefix": PrefixConfig}
)
"""Every evaluation strategy by name."""


@dataclass(frozen=True)
class ChoosingConfig(EvaluatorConfig):
    """Settings of an evaluator that chooses a strategy. `cache_gb` as for `prefix`."""

    cache_gb: float = 1.0

    def of_strategy(self, name: str) -> StrategyConfig:
        """The settings of one strategy, with the values of these."""
        strategy = STRATEGIES[name]
        names = {field.name for field in fields(strategy)}
        return strategy(**{field.name: getattr(self, field.name) for field in fields(self) if field.name in names})
