"""What would be too much, known before it is spent?"""
