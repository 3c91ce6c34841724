"""How stored samples become a model's input and back, and how a person looks at them."""
