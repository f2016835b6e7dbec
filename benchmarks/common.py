"""What all benchmark scripts do first."""

from __future__ import annotations

import argparse
import ctypes
import gc
import logging
import os
import threading
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


def resident() -> float:
    """Memory of this process now, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Peak(threading.Thread):
    """Highest memory of this process from now on, MB above what it has when it begins.

    What was freed before is given back to the system first, or it would count as had.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        self.before = self.highest = resident()
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.02):
            self.highest = max(self.highest, resident())

    def end(self) -> float:
        """Stop, and tell."""
        self.highest = max(self.highest, resident())
        self.ended.set()
        return self.highest - self.before
