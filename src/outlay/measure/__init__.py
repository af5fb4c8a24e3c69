"""Numbers about a campaign: what was bought, how well the model does, what it cost, and how sure we are. Pure functions."""
