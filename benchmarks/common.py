"""What all benchmark scripts do first."""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path

import torch


def make_parser(doc: str | None) -> argparse.ArgumentParser:
    """Options of every script; the first line of its docstring describes it."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    return parser


def start(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the options, take the threads, be quiet and make the folder of the results."""
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    args.out.mkdir(parents=True, exist_ok=True)
    return args
