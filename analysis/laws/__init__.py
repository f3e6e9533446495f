"""Which scaling laws are there, and what follows from one?"""
