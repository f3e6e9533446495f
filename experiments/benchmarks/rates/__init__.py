"""Does one learning rate do for every shape?"""
