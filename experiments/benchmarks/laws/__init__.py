"""Are intervals honest, fits fast, and other packages no better?"""
