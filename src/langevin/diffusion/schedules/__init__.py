"""How noise grows with time: one file a schedule."""
