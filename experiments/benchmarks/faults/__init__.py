"""Is anything lost, or done twice, when things break?"""
