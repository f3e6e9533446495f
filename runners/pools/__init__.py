"""Where do trials run? Every pool keeps one contract."""
