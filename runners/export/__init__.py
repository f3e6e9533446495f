"""How does a model leave? As a folder that the library transformers loads, offline."""
