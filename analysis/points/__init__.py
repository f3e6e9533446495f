"""Which rows of a table, or of a sweep, does a law see?"""
