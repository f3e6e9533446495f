"""What do results say beyond themselves: the loss without luck, and the luck?"""
