"""Networks that map images to latents and back."""
