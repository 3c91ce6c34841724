"""Makes images: `python sample.py checkpoint=outputs/NAME num_samples=64 sampler=ddim sampler.steps=50`."""

from langevin.commands.sample import main

if __name__ == "__main__":
    main()
