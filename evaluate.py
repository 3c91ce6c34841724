"""Measures images: `python evaluate.py samples=FILE_OR_DIR reference=FILE_OR_DIR metrics=[fid,inception_score]`."""

from langevin.commands.evaluate import main

if __name__ == "__main__":
    main()
