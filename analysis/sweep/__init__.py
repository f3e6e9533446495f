"""What laws does a sweep support, and how much compute is an arm worth?"""
