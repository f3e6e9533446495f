"""What does an experiment ask for?"""
