"""Inputs that people have, each of a kind, and the outcome that each must have."""
