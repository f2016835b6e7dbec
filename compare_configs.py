"""Compare what configurations of the network cost: ``python compare_configs.py --help``."""

import sys

from alphastomics.main import app

if __name__ == "__main__":
    app(["compare-configs", *sys.argv[1:]])
