"""Is the engine fast, true to the plain loop and to its count?"""
