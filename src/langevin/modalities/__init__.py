"""How samples of a kind are shown to a person."""
