"""``python -m alphastomics``."""

from alphastomics.main import app

if __name__ == "__main__":
    app()
