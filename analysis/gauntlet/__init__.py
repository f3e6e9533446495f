"""Do we get what others published from the same data?"""
