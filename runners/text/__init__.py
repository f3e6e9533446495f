"""Which tokens does a trial train on, and which is it measured on?"""
