"""Train a model: `python train.py --config config.yaml --data_dir processed --exp_name first`."""

from alphastomics.main import train_app

if __name__ == "__main__":
    train_app()
