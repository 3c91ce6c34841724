"""The commands of the scripts `train.py`, `sample.py`, `evaluate.py` and `convert.py`."""
