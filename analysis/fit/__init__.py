"""What is the result of a fit, and would it have predicted what it has not seen?"""
