"""What a config may hold, and finding all mistakes in one before anything is changed."""
