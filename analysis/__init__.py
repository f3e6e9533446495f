"""What do the runs say?"""
