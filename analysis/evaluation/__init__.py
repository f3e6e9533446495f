"""What do a model's answers say? Scores by named rules, errors, chance, and two runs paired."""
