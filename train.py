"""Trains a model: `python train.py data=cifar10 schedule=cosine model=unet`. See `python train.py --help`."""

from langevin.commands.train import main

if __name__ == "__main__":
    main()
