"""How does a fit read, and what else can be said about it?"""
