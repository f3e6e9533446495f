"""What is a model, and what does it cost?"""
