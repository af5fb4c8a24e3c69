"""Covering a pool with few of its points: the computations that acquisition strategies call. Pure numpy; rows in, rows out."""
