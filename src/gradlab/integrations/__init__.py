"""Other people's code: their training loops, and their weights. Nothing of gradlab imports it."""
