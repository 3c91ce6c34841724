"""What `evaluate.py` does: one file for each thing that can be measured."""
