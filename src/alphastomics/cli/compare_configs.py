"""Former place of the command; ``alphastomics.main`` can import it from ``compare``."""

from alphastomics.cli.compare import compare_configs_command

__all__ = ["compare_configs_command"]
