"""How near to the best configuration does a search come?"""
