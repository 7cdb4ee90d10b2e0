"""Who chooses the component of a row: the two kinds of weights, and those that many distributions share."""
