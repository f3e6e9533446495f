"""Which size is best at a budget, and how does it grow with compute?"""
