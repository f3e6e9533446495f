"""How does a trial run?"""
