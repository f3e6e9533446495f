"""How does one trial get from its start to its outcome, whatever happens between?"""
