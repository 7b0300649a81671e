"""The store: segments, manifests and the tree of savepoints. Knows no model arithmetic and no screen."""
