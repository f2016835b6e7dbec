"""YAML files of keys and values, without what no configuration needs."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

YAML_BYTES, YAML_DEPTH = 1_000_000, 20


class ConfigError(ValueError):
    """Invalid configuration: the message names the key, the value and what is allowed."""


class _Loader(yaml.SafeLoader):
    """Reads ``1e-4`` as the number that it is in YAML 1.2, and refuses what no configuration needs.

    An alias multiplies what it stands for, and of a key that is there twice only one value counts.
    """

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Read a node, unless it is an alias or nested too deeply."""
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            problem = "aliases (*name) are not read here: write the value out"
            raise yaml.composer.ComposerError(None, None, problem, mark)
        self.depth += 1
        if self.depth > YAML_DEPTH:
            problem = f"nested more than {YAML_DEPTH} levels deep"
            raise yaml.composer.ComposerError(None, None, problem, mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Read keys and values, every key once."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                problem = f"the key {key.value!r} is there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of keys and values."""
    if not path.is_file():
        raise ConfigError(f"--config: there is no file {str(path)!r}.")
    if path.stat().st_size > YAML_BYTES:
        raise ConfigError(f"{path}: larger than {YAML_BYTES:,} bytes, which no configuration is.")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not UTF-8 text (byte {error.start}): save the file as UTF-8."
        ) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: dates and numbers that cannot be
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else f"{path}"
        why = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{where}: not valid YAML: {why}.") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(values).__name__}.")
    return values
