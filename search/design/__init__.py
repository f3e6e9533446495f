"""What does a set of runs tell of a scaling law, and which run tells most per FLOP?"""
