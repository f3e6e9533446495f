"""Which trial next, and is a running one worth its remaining FLOPs?"""
