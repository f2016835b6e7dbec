"""Estimators that are fitted to the training cells before the network is trained."""
