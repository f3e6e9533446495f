"""What is minimised when a law is fitted, and how is its minimum found?"""
