"""What are models made of? Each piece: its module, its price, and what its parameters are."""
