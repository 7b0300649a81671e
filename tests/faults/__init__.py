"""The fault battery of the store, its quick share."""
