"""Takes models from other libraries, and to them: `python convert.py import=FOLDER out=outputs/NAME`."""

from langevin.commands.convert import main

if __name__ == "__main__":
    main()
