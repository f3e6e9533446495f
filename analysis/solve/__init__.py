"""Where is the optimum of one law on one table, and how far could it be off?"""
