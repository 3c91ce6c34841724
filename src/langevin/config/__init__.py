"""What a config may hold, and finding all that is wrong with one before anything is touched."""
