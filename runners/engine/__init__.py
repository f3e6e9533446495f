"""How does one step train a model, and one pass measure it?"""
